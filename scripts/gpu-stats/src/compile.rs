//! Kernels through naga and the driver.

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
use crate::stats::{Compiled, DEVICE, KERNELS, Outcome};

/// Compiles the kernels of a folder. Each result is written as soon as it is there: a compiler may end the process.
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
    let (spirv, bindings) = spirv(source)?;
    let told = driver.compile(&spirv, &bindings, false)?;
    let ms = processor_ms() - before;
    let listing = driver.compile(&spirv, &bindings, true)?.listing;
    let main_loop = listing.as_deref().and_then(MainLoop::find);
    Ok(Outcome::Compiled { ms, statistics: told.statistics, main_loop })
}

/// What this process has used of a processor: unlike the time of day it does not depend on what else is running.
fn processor_ms() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 * 1e-6
}

/// SPIR-V as wgpu has it made of a trusted shader, and what has to be bound.
fn spirv(source: &str) -> Result<(Vec<u32>, Vec<Binding>)> {
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
    let words = spv::write_vec(&module, &info, &options, Some(&stage))?;
    let bindings = module.global_variables.iter().filter_map(|(_, global)| {
        let at = global.binding?;
        Some(Binding {
            group: at.group,
            number: at.binding,
            uniform: global.space == naga::AddressSpace::Uniform,
        })
    });
    Ok((words, bindings.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wgsl_becomes_spirv_and_a_list_of_bindings() {
        let source = "
            @group(0) @binding(1) var<storage, read_write> y: array<f32>;
            @group(1) @binding(0) var<uniform> step: vec4<u32>;
            @compute @workgroup_size(32) fn main() { y[step.x] = 1.0; }";
        let (words, bindings) = spirv(source).unwrap();
        assert_eq!(words[0], 0x0723_0203, "SPIR-V's magic number");
        let bound: Vec<_> = bindings.iter().map(|b| (b.group, b.number, b.uniform)).collect();
        assert_eq!(bound, [(0, 1, false), (1, 0, true)]);
        assert!(spirv("fn main( {").is_err());
    }
}
