//! Kernels compiled for a device.

use super::faults::Faults;
use super::pace::Cost;
use super::shader::{KernelKey, validate};
use super::tensor::Access;
use crate::error::{Error, Result};

/// A compiled kernel.
pub(super) struct Kernel {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    pub cost: Cost,
}

/// Compiles a kernel; its second bind group is `step`. `checked` keeps the shader's runtime checks.
///
/// # Errors
/// [`Error::Shader`].
pub(super) fn compile(
    device: &wgpu::Device,
    step: &wgpu::BindGroupLayout,
    checked: bool,
    faults: &Faults,
    key: &KernelKey,
) -> Result<Kernel> {
    let module = validate(key)?;
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(key.name),
        source: wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(module)),
    };
    let module = match checked {
        true => device.create_shader_module(descriptor),
        // SAFETY: every kernel bounds its own indices by the extents in its parameters, and the tests run
        // all of them with the checks on as well.
        false => unsafe {
            device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        },
    };
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
