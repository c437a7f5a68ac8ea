//! The bounds that every kernel must keep on every GPU.

use crate::stats::{Compiled, Outcome, Quantity};

/// Code size in bytes: above it, instruction caches do not hold a kernel's loops.
pub const CODE_BYTES: f64 = 64.0 * 1024.0;
/// Milliseconds of compilation, for which users wait.
pub const COMPILE_MS: f64 = 5000.0;

/// Describes the bounds that this kernel breaks; empty if it keeps all.
pub fn broken(compiled: &Compiled) -> Vec<String> {
    let (ms, statistics) = match &compiled.outcome {
        Outcome::Failed(why) => {
            return vec![format!("does not compile: {}", why.lines().next().unwrap_or_default())];
        }
        Outcome::Compiled { ms, statistics, .. } => (*ms, statistics),
    };
    let value = |quantity: Quantity| quantity.of(statistics).unwrap_or(0.0);
    let mut broken = Vec::new();
    match (value(Quantity::Spills), value(Quantity::ScratchBytes)) {
        (0.0, 0.0) => {}
        (spills, 0.0) => broken.push(format!("{spills} spills")),
        (0.0, scratch) => broken.push(format!("{scratch} bytes of scratch memory")),
        (spills, scratch) => broken.push(format!("{spills} spills, {scratch} bytes of scratch memory")),
    }
    let code = value(Quantity::CodeBytes);
    if code > CODE_BYTES {
        broken.push(format!("{:.0} KiB of code", code / 1024.0));
    }
    if ms > COMPILE_MS {
        broken.push(format!("{:.1} s to compile", ms / 1e3));
    }
    broken
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn compiled(ms: f64, statistics: &[(&str, f64)]) -> Compiled {
        let statistics = statistics.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        Compiled {
            file: "000-adamw".into(),
            kernel: "adamw".into(),
            constants: vec![("GROUP".into(), "64".into())],
            steps: vec!["smollm2-135m f32 optimiser".into()],
            outcome: Outcome::Compiled { ms, statistics, main_loop: None },
        }
    }

    #[test]
    fn a_kernel_at_its_bounds_does_not_break_them() {
        let good = [("VGPRs", 256.0), ("Spilled VGPRs", 0.0), ("Scratch size", 0.0), ("Code size", 65536.0)];
        assert!(broken(&compiled(5000.0, &good)).is_empty());
    }

    #[test]
    fn each_broken_bound_is_reported() {
        let spills = [("Spills to memory", 12.0), ("SLM size", 48.0)];
        assert_eq!(broken(&compiled(1.0, &spills)), ["12 spills, 48 bytes of scratch memory"]);
        assert_eq!(broken(&compiled(1.0, &[("Scratch", 64.0)])), ["64 bytes of scratch memory"]);
        let long = [("Spilled SGPRs", 1.0), ("Spilled VGPRs", 2.0), ("Code Size", 131072.0)];
        assert_eq!(broken(&compiled(5001.0, &long)), ["3 spills", "128 KiB of code", "5.0 s to compile"]);
        let mut failed = compiled(1.0, &[]);
        failed.outcome = Outcome::Failed("no such type\nat line 3".into());
        assert_eq!(broken(&failed), ["does not compile: no such type"]);
    }
}
