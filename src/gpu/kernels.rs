//! Kernels compiled for a device.

use super::faults::Faults;
use super::llvmpipe;
use super::pace::Cost;
use super::shader::{KernelKey, validate};
use super::tensor::Access;
use crate::error::{Error, Result};

/// How kernels are compiled. They bound their own indices and need no runtime checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Compilation {
    #[default]
    Plain,
    /// For the versions of [`llvmpipe`] on which kernels crash.
    Llvmpipe,
    /// With all runtime checks: bounds and loops.
    Checked,
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
    compilation: Compilation,
    faults: &Faults,
    key: &KernelKey,
) -> Result<Kernel> {
    let mut module = validate(key)?;
    if compilation == Compilation::Llvmpipe {
        llvmpipe::use_buffers_first(&mut module);
    }
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(key.name),
        source: wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(module)),
    };
    let unchecked = wgpu::ShaderRuntimeChecks::unchecked();
    let checks = match compilation {
        Compilation::Plain => unchecked,
        Compilation::Llvmpipe => wgpu::ShaderRuntimeChecks { bounds_checks: true, ..unchecked },
        Compilation::Checked => wgpu::ShaderRuntimeChecks::checked(),
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
