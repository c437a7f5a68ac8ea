//! Kernels compiled for a device.

use super::faults::Faults;
use super::pace::Cost;
use super::shader::{KernelKey, validate};
use super::tensor::Access;
use crate::error::{Error, Result};

/// The runtime checks that are compiled into kernels. Kernels bound their own indices and need none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RuntimeChecks {
    #[default]
    None,
    /// Indices into arrays are kept within bounds.
    Bounds,
    /// Bounds and loops.
    All,
}

impl RuntimeChecks {
    /// The checks that kernels need with this driver, in the form of [`GpuSummary::driver`].
    ///
    /// llvmpipe runs the body of a loop once more after its last active invocation has left it. From some version on, a
    /// load in this pass reads workgroup memory at the index of an inactive invocation, which can be any number, and the
    /// process crashes. Tried: Mesa 22.3 and 25.0 do not crash, 25.2 does.
    pub fn for_driver(driver: &str) -> RuntimeChecks {
        let Some(llvmpipe) = driver.strip_prefix("llvmpipe") else { return RuntimeChecks::None };
        let version = llvmpipe.split_once("Mesa ").map(|(_, version)| version.split('.'));
        let mut numbers = version.into_iter().flatten().map_while(|number| number.parse::<u32>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) if (major, minor) < (25, 1) => RuntimeChecks::None,
            _ => RuntimeChecks::Bounds,
        }
    }
}

/// A compiled kernel.
pub(super) struct Kernel {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    pub cost: Cost,
}

/// Compiles a kernel; its second bind group is `step`.
///
/// # Errors
/// [`Error::Shader`].
pub(super) fn compile(
    device: &wgpu::Device,
    step: &wgpu::BindGroupLayout,
    checks: RuntimeChecks,
    faults: &Faults,
    key: &KernelKey,
) -> Result<Kernel> {
    let module = validate(key)?;
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(key.name),
        source: wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(module)),
    };
    let unchecked = wgpu::ShaderRuntimeChecks::unchecked();
    let checks = match checks {
        RuntimeChecks::None => unchecked,
        RuntimeChecks::Bounds => wgpu::ShaderRuntimeChecks { bounds_checks: true, ..unchecked },
        RuntimeChecks::All => wgpu::ShaderRuntimeChecks::checked(),
    };
    // SAFETY: every kernel bounds its own indices by the extents in its parameters, and the tests run all of them with
    // all checks as well.
    let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
    let entry = |binding, ty, dynamic| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: dynamic, min_binding_size: None },
        count: None,
    };
    let uniform = (!key.params.is_empty()).then(|| entry(0, wgpu::BufferBindingType::Uniform, false));
    let storage = key.bindings.iter().zip(1..).map(|(binding, index)| {
        let ty = wgpu::BufferBindingType::Storage { read_only: binding.access == Access::Read };
        entry(index, ty, false)
    });
    let entries: Vec<_> = uniform.into_iter().chain(storage).collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(key.name),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(key.name),
        bind_group_layouts: &[Some(&layout), Some(step)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(key.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    let kernel = key.name.to_owned();
    let refused = faults.caught(scope, |e| Error::Shader { kernel, why: e.to_string() });
    refused.map_or(Ok(Kernel { pipeline, layout, cost: Cost::default() }), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvmpipe_gets_bounds_checks_from_the_first_version_that_may_crash_on() {
        for (driver, checks) in [
            ("llvmpipe Mesa 22.3.6 (LLVM 15.0.6)", RuntimeChecks::None),
            ("llvmpipe Mesa 25.0.7-2 (LLVM 19.1.7)", RuntimeChecks::None),
            ("llvmpipe Mesa 25.1.0-devel (LLVM 19.1.7)", RuntimeChecks::Bounds),
            ("llvmpipe Mesa 25.2.8-0ubuntu0.24.04.5 (LLVM 20.1.2)", RuntimeChecks::Bounds),
            ("llvmpipe Mesa 26.0.0 (LLVM 21.1.0)", RuntimeChecks::Bounds),
            ("llvmpipe", RuntimeChecks::Bounds),
            ("radv Mesa 25.2.8", RuntimeChecks::None),
            ("NVIDIA 570.86", RuntimeChecks::None),
            ("", RuntimeChecks::None),
        ] {
            assert_eq!(RuntimeChecks::for_driver(driver), checks, "{driver}");
        }
    }
}
