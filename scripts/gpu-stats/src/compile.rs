//! Compiles kernels with naga and the driver.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use rustix::time::{ClockId, clock_gettime};

use crate::Result;
use crate::driver::{Binding, Driver};
use crate::kernel_file::KernelFile;
use crate::main_loop::MainLoop;
use crate::stats::{Compiled, DEVICE, KERNELS, Outcome, Quantity};

/// The driver whose listings [`MainLoop`] can read.
const LISTED: &str = "radv";

/// Compiles the kernels of a folder. Each result is written immediately, since a compiler may crash the process.
pub fn compile(dir: &Path) -> Result<()> {
    let kernels = KernelFile::read_all(dir)?;
    let driver = Driver::open()?;
    fs::write(dir.join(DEVICE), serde_json::to_string(&driver.info)?)?;
    let mut out = File::create(dir.join(KERNELS))?;
    for (file, kernel) in kernels {
        let outcome = match outcome(&driver, &kernel.source) {
            Ok(outcome) => outcome,
            Err(why) => Outcome::Failed(why.to_string()),
        };
        let KernelFile { kernel, constants, steps, .. } = kernel;
        let compiled = Compiled { file, kernel, constants, steps, outcome };
        writeln!(out, "{}", serde_json::to_string(&compiled)?)?;
    }
    Ok(())
}

fn outcome(driver: &Driver, source: &str) -> Result<Outcome> {
    let before = processor_ms();
    let Translated { spirv, bindings, workgroup_bytes } = translate(source)?;
    let mut statistics = driver.compile(&spirv, &bindings, false)?.statistics;
    let ms = processor_ms() - before;
    if Quantity::WorkgroupBytes.of(&statistics).is_none() {
        statistics.push(("workgroup bytes in WGSL".into(), f64::from(workgroup_bytes)));
    }
    // Compiled a second time, so that the measured time excludes the listing.
    let main_loop = match driver.info.driver.starts_with(LISTED) {
        true => driver.compile(&spirv, &bindings, true)?.listing.as_deref().and_then(MainLoop::find),
        false => None,
    };
    Ok(Outcome::Compiled { ms, statistics, main_loop })
}

/// Returns the CPU time of this process, which does not depend on what else is running, unlike wall time.
fn processor_ms() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 * 1e-6
}

/// A kernel translated for a driver.
struct Translated {
    spirv: Vec<u32>,
    bindings: Vec<Binding>,
    workgroup_bytes: u32,
}

/// Translates to SPIR-V as wgpu does for a trusted shader.
fn translate(source: &str) -> Result<Translated> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::empty(),
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let stage = spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into() };
    let spirv = spv::write_vec(&module, &info, &options, Some(&stage))?;
    let globals = || module.global_variables.iter().map(|(_, global)| global);
    let bindings = globals().filter_map(|global| {
        let at = global.binding?;
        let uniform = global.space == naga::AddressSpace::Uniform;
        Some(Binding { group: at.group, number: at.binding, uniform })
    });
    let workgroup = globals().filter(|global| global.space == naga::AddressSpace::WorkGroup);
    let workgroup_bytes = workgroup.map(|global| module.types[global.ty].inner.size(module.to_ctx())).sum();
    Ok(Translated { spirv, bindings: bindings.collect(), workgroup_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wgsl_becomes_spirv_and_a_list_of_bindings() {
        let source = "
            @group(0) @binding(1) var<storage, read_write> y: array<f32>;
            @group(1) @binding(0) var<uniform> step: vec4<u32>;
            var<workgroup> tile: array<f32, 64>;
            @compute @workgroup_size(32) fn main() { y[step.x] = tile[step.y]; }";
        let Translated { spirv, bindings, workgroup_bytes } = translate(source).unwrap();
        assert_eq!(spirv[0], 0x0723_0203, "SPIR-V's magic number");
        let bound: Vec<_> = bindings.iter().map(|b| (b.group, b.number, b.uniform)).collect();
        assert_eq!((bound, workgroup_bytes), (vec![(0, 1, false), (1, 0, true)], 256));
        assert!(translate("fn main( {").is_err());
    }
}
