//! The values that change from one replay of a plan to the next, as kernels read them.

/// The values that change from one replay to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    /// Live extents, see [`super::Dim::Live`].
    pub extents: [u32; 8],
    /// Scalars for the kernels: learning rate and others.
    pub scalars: [f32; 8],
    /// Average number of keys per row of attention, for the time cap; 0: the usual number of the op.
    pub keys: u32,
    /// Seed of the random numbers.
    pub seed: u32,
    /// The index of the draw.
    pub draw: u32,
}

/// `Live` for one dispatch, as shaders/prelude.wgsl declares it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
pub(super) struct Step {
    base: u32,
    end: u32,
    seed: u32,
    draw: u32,
    extents: [u32; 8],
    scalars: [f32; 8],
}

impl Step {
    /// For the workgroups of a launch from `base` up to `end`.
    pub fn new(live: &Live, base: u32, end: u32) -> Step {
        Step { base, end, seed: live.seed, draw: live.draw, extents: live.extents, scalars: live.scalars }
    }
}

/// Distance between two `Step`s in their buffer; a valid dynamic offset on every device.
pub(super) const STEP_STRIDE: u64 = 256;
/// The most pieces of split launches in one submit; slot 0 stands for a whole launch.
pub(super) const STEP_SLOTS: usize = 64;
/// The layout of the bind group of a `Step`.
pub(super) fn step_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("step"),
        entries: &[wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Uniform,
                has_dynamic_offset: true,
                min_binding_size: None,
            },
            count: None,
        }],
    })
}
