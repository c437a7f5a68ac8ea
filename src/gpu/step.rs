//! What changes from one replay of a plan to the next, and how kernels read it.

/// What changes from one replay to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    /// Live extents, see [`super::Dim::Live`].
    pub extents: [u32; 8],
    /// Scalars that kernels read: learning rate and the like.
    pub scalars: [f32; 8],
    /// Keys that a row of attention sees on average, for the time cap; 0: what its op takes for usual.
    pub keys: u32,
    /// Seed of the random numbers.
    pub seed: u32,
    /// Which draw this is.
    pub draw: u32,
}

/// A dispatch's view of `Live`, as shaders/prelude.wgsl declares it.
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

/// Distance between two `Step`s in their buffer: any device accepts it as a dynamic offset.
pub(super) const STEP_STRIDE: u64 = 256;
/// Pieces of split launches that one submit can hold; piece 0 is "the whole launch".
pub(super) const STEP_SLOTS: usize = 64;
/// Of the binding of a `Step`.
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
