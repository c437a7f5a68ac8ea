//! Options for opening a GPU.

use derive_setters::Setters;

use crate::error::{Error, Result};

/// How much of the GPU the kernels use. In every tier, results are checked against `reference`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[non_exhaustive]
pub enum Tier {
    /// T0. Core WGSL: at most 128 invocations and 16 KiB of workgroup memory, 8 storage buffers, f32, no subgroups.
    #[default]
    Portable,
    /// T1. Lanes of a subgroup share loaded values; for CPUs with a software driver whose subgroups all have one size.
    Subgroups,
    /// T2. Products of rows with a frozen f16 matrix use cooperative matrices, which wgpu marks as experimental: see
    /// [`Arithmetic::Cooperative`](super::Arithmetic::Cooperative).
    Cooperative,
}

impl Tier {
    /// Every tier, lowest first: T0, T1, …
    pub const ALL: [Tier; 3] = [Tier::Portable, Tier::Subgroups, Tier::Cooperative];
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Tier::Portable => f.write_str("T0 (portable)"),
            Tier::Subgroups => f.write_str("T1 (subgroups)"),
            Tier::Cooperative => f.write_str("T2 (cooperative matrices)"),
        }
    }
}

/// Which GPU to open and how to use it.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct GpuOptions {
    /// Index or part of the name, as `oaif doctor` lists them. `None`: `OAIF_GPU` if set, else the preferred kind.
    #[setters(into)]
    pub gpu: Option<String>,
    /// T0 or T1: the highest tier to use. T2: exactly this tier; [`crate::tuning::check_arithmetic`] checks its
    /// results. `None`: T1 on CPUs that support it, T0 on GPUs; never T2, since that would change the numbers.
    #[setters(into)]
    pub tier: Option<Tier>,
    /// Keeps all runtime checks of the shaders (bounds, loops): slower; for tests and debugging.
    pub checked: bool,
    /// Limits a binding to this many bytes, to test tensors that are split by rows.
    #[setters(into)]
    pub max_binding_bytes: Option<u64>,
    /// Times every launch, see [`Gpu::profile`](super::Gpu::profile).
    pub profile: bool,
    /// The longest time that one submit should occupy the GPU, in milliseconds. Drivers kill submits after seconds; a
    /// desktop stutters after tens of milliseconds. On an application's own device a frame waits for two submits at
    /// most.
    pub submit_ms: f64,
    /// The most bytes that may be allocated on the device, see [`Gpu::memory`](super::Gpu::memory). Above that,
    /// allocations return [`Error::OutOfMemory`].
    #[setters(into)]
    pub memory_limit: Option<u64>,
    /// Requests only the limits that WebGPU guarantees, to test that they suffice.
    #[doc(hidden)]
    pub default_limits: bool,
    /// Limits a dispatch to this many workgroups in one dimension, to test large grids.
    #[doc(hidden)]
    #[setters(into)]
    pub max_groups_per_dimension: Option<u32>,
}

impl GpuOptions {
    /// Refuses values that no device can work with.
    pub(super) fn check(&self) -> Result<()> {
        if self.submit_ms.is_nan() || self.submit_ms <= 0.0 {
            return Err(Error::config("submit-ms", format!("{} is not a time above 0", self.submit_ms)));
        }
        let limits = [
            ("max_binding_bytes", self.max_binding_bytes == Some(0)),
            ("memory_limit", self.memory_limit == Some(0)),
            ("max_groups_per_dimension", self.max_groups_per_dimension == Some(0)),
        ];
        match limits.iter().find(|(_, is_zero)| *is_zero) {
            Some((what, _)) => Err(Error::config(*what, "is 0: use a value above 0, or leave it out")),
            None => Ok(()),
        }
    }
}

impl Default for GpuOptions {
    fn default() -> GpuOptions {
        GpuOptions {
            gpu: None,
            tier: None,
            checked: false,
            max_binding_bytes: None,
            profile: false,
            submit_ms: 50.0,
            memory_limit: None,
            max_groups_per_dimension: None,
            default_limits: false,
        }
    }
}
