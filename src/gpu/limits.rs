//! The limits of a GPU that shape plans.

/// The limits that shape plans.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Limits {
    /// Largest storage binding in bytes.
    pub binding: u64,
    /// Largest buffer in bytes.
    pub buffer: u64,
    /// Alignment of a binding's offset in bytes.
    pub alignment: u64,
    /// Workgroups in one dimension of a dispatch.
    pub groups_per_dimension: u32,
}

impl Default for Limits {
    /// The limits that WebGPU guarantees.
    fn default() -> Limits {
        Limits { binding: 128 << 20, buffer: 256 << 20, alignment: 256, groups_per_dimension: 65_535 }
    }
}
