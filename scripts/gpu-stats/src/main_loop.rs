//! The instructions in the main loop of a kernel, from the listings of Mesa's compiler for AMD GPUs.

use serde::{Deserialize, Serialize};

/// Counts of instructions in the loop with most multiply-adds, without those of inner loops.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MainLoop {
    /// Multiply-adds per lane: one instruction may do two or more.
    pub multiply_adds: usize,
    /// Vector instructions.
    pub vector: usize,
    /// Vector instructions that multiply and add.
    pub multiply_add_instructions: usize,
    /// Vector instructions that convert or compute integers, mostly addresses.
    pub integer: usize,
    /// Vector loads from buffers.
    pub vector_loads: usize,
    /// Scalar loads, one for a whole subgroup.
    pub scalar_loads: usize,
    /// Instructions on workgroup memory.
    pub workgroup: usize,
    /// Loads and stores of spilled registers.
    pub scratch: usize,
    /// Waits for any of these.
    pub waits: usize,
}

/// Prefixes of the names of instructions.
const VECTOR_LOADS: [&str; 3] = ["buffer_load", "global_load", "flat_load"];
const SCALAR_LOADS: [&str; 2] = ["s_load", "s_buffer_load"];
const INTEGER: [&str; 22] = [
    "v_cvt",
    "v_lsh",
    "v_ash",
    "v_and",
    "v_or",
    "v_xor",
    "v_bfe",
    "v_bfi",
    "v_perm",
    "v_add_n",
    "v_add_co",
    "v_add_u",
    "v_add_i",
    "v_add3",
    "v_sub_n",
    "v_sub_co",
    "v_mul_lo",
    "v_mul_hi",
    "v_cmp",
    "v_cndmask",
    "v_alignbit",
    "v_mad_u",
];

impl MainLoop {
    /// Returns `None` if no loop of the listing contains a multiply-add.
    pub fn find(listing: &str) -> Option<MainLoop> {
        let blocks = blocks(listing);
        let loops = loops(&blocks);
        let own_code = |of: &Loop| {
            let within = |block: &usize| loops.iter().any(|other| of.contains(other) && other.has(*block));
            let own = (of.first..=of.last).filter(|block| !within(block));
            MainLoop::count(own.flat_map(|block| blocks[block].1.iter().copied()))
        };
        loops.iter().map(own_code).filter(|l| l.multiply_adds > 0).max_by_key(|l| l.multiply_adds)
    }

    fn count<'l>(body: impl Iterator<Item = &'l str>) -> MainLoop {
        let mut out = MainLoop::default();
        for line in body {
            let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| line.starts_with(prefix));
            let multiply_adds = multiply_adds(line);
            out.multiply_adds += multiply_adds;
            out.multiply_add_instructions += usize::from(multiply_adds > 0);
            out.vector += usize::from(is(&["v_"]));
            out.integer += usize::from(multiply_adds == 0 && is(&INTEGER));
            out.vector_loads += usize::from(is(&VECTOR_LOADS));
            out.scalar_loads += usize::from(is(&SCALAR_LOADS));
            out.workgroup += usize::from(is(&["ds_"]));
            out.scratch += usize::from(is(&["scratch_"]));
            out.waits += usize::from(is(&["s_wait"]));
        }
        out
    }

    /// Returns the fraction of the vector instructions that are multiply-adds.
    pub fn share(&self) -> f64 {
        self.multiply_add_instructions as f64 / self.vector.max(1) as f64
    }
}

/// The blocks from the target of a backward branch to the last block that branches to it.
struct Loop {
    first: usize,
    last: usize,
}

impl Loop {
    fn has(&self, block: usize) -> bool {
        (self.first..=self.last).contains(&block)
    }

    fn contains(&self, other: &Loop) -> bool {
        self.first < other.first && other.last <= self.last
    }
}

fn loops(blocks: &[(&str, Vec<&str>)]) -> Vec<Loop> {
    let mut loops: Vec<Loop> = Vec::new();
    for (last, (_, code)) in blocks.iter().enumerate() {
        for target in code.iter().filter_map(|line| branch_target(line)) {
            let Some(first) = blocks[..=last].iter().position(|(name, _)| *name == target) else { continue };
            match loops.iter_mut().find(|known| known.first == first) {
                Some(known) => known.last = last,
                None => loops.push(Loop { first, last }),
            }
        }
    }
    loops
}

/// Returns the blocks in order, each with its name and instructions, without comments.
fn blocks(listing: &str) -> Vec<(&str, Vec<&str>)> {
    let mut blocks: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in listing.lines() {
        let code = line.split(';').next().unwrap_or_default().trim();
        match (code.strip_suffix(':').filter(|name| name.starts_with("BB")), blocks.last_mut()) {
            (Some(name), _) => blocks.push((name, Vec::new())),
            (None, Some((_, block))) if !code.is_empty() => block.push(code),
            _ => {}
        }
    }
    blocks
}

fn branch_target(line: &str) -> Option<&str> {
    let (name, target) = line.split_once(' ')?;
    (name.starts_with("s_branch") || name.starts_with("s_cbranch")).then(|| target.trim())
}

/// Returns the multiply-adds per lane of one instruction.
fn multiply_adds(line: &str) -> usize {
    let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| line.starts_with(prefix));
    if line.starts_with("v_dual_") {
        return line.matches("v_dual_fma").count();
    }
    if is(&["v_pk_fma", "v_dot2"]) {
        return 2;
    }
    usize::from(is(&["v_fma", "v_mac", "v_mad_f", "v_mad_mix"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "
BB0:
    s_load_b128 s[0:3], s[4:5], 0x0     ; f4080002 fa000000
BB1:
    v_fma_f32 v9, v9, v9, v9            ; of the outer loop
BB2:
    s_waitcnt vmcnt(0)
    buffer_load_b128 v[0:3], v8, s[0:3], 0 offen
    ds_load_b128 v[4:7], v9
    v_dual_fmac_f32 v0, v1, v2 :: v_dual_fmac_f32 v3, v4, v5
    v_fmac_f32_e32 v6, v7, v8
    v_pk_fma_f16 v6, v7, v8, v9
    v_add_nc_u32_e32 v8, 16, v8
    v_mul_f32_e32 v1, v1, v1
    s_cbranch_scc1 BB2
BB3:
    s_cbranch_vccz BB1
BB4:
    s_endpgm
";

    #[test]
    fn the_loop_that_multiplies_and_adds_most_is_counted_without_the_others() {
        let one = MainLoop::find(LISTING).unwrap();
        assert_eq!((one.multiply_adds, one.multiply_add_instructions, one.vector, one.integer), (5, 3, 5, 1));
        assert_eq!((one.vector_loads, one.scalar_loads, one.workgroup, one.waits), (1, 0, 1, 1));
        assert_eq!(one.share(), 0.6);
        assert_eq!(MainLoop::find("BB0:\n v_fma_f32 v0, v0, v0, v0\n s_endpgm\n"), None);
    }

    #[test]
    fn a_loop_around_one_that_only_loads_may_be_the_main_one() {
        let listing = "BB0:\n v_fma_f32 v0, v0, v0, v0\nBB1:\n buffer_load_b32 v1, v1\n s_cbranch_scc1 BB1\nBB2:\n s_branch BB0\n";
        let one = MainLoop::find(listing).unwrap();
        assert_eq!((one.multiply_adds, one.vector_loads), (1, 0));
    }
}
