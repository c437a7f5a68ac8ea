//! Kernels validated without a GPU, and compiled once for a device.

use std::sync::Arc;

use super::{KernelKey, assemble};
use crate::error::{Error, Result};
use crate::gpu::{Access, Gpu};

/// A compiled kernel.
pub struct Kernel {
    pub(in crate::gpu) pipeline: wgpu::ComputePipeline,
    pub(in crate::gpu) layout: wgpu::BindGroupLayout,
}

/// Parses and validates a kernel on the host.
///
/// # Errors
/// [`Error::Shader`] with naga's message and the line.
pub fn validate(key: &KernelKey) -> Result<naga::Module> {
    let source = assemble(key)?;
    let fail = |why: String| Error::Shader { kernel: key.name.into(), why };
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| fail(e.emit_to_string(&source)))?;
    use naga::valid::Capabilities;
    let capabilities = Capabilities::SUBGROUP
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::COOPERATIVE_MATRIX;
    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| fail(e.emit_to_string(&source)))?;
    Ok(module)
}

impl Gpu {
    /// The compiled kernel, from the cache where it is there already.
    pub(in crate::gpu) fn kernel(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        if let Some(kernel) = self.inner.kernels.lock().unwrap().get(key) {
            return Ok(kernel.clone());
        }
        let kernel = Arc::new(self.compile(key)?);
        self.inner.kernels.lock().unwrap().insert(key.clone(), kernel.clone());
        Ok(kernel)
    }

    fn compile(&self, key: &KernelKey) -> Result<Kernel> {
        let module = validate(key)?;
        let device = self.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(key.name),
            source: wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(module)),
        };
        let module = match self.inner.checked {
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
            bind_group_layouts: &[Some(&layout), self.inner.step_layout.as_ref()],
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
        self.count(|c| c.pipelines += 1);
        match pollster::block_on(scope.pop()) {
            Some(e) => Err(Error::Shader { kernel: key.name.into(), why: e.to_string() }),
            None => Ok(Kernel { pipeline, layout }),
        }
    }
}
