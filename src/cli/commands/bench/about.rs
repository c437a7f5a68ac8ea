//! The program, the machine and the settings of a benchmark.

use std::time::SystemTime;

use serde::Serialize;

use crate::bench::Bench;
use crate::bench::Ceilings;
use crate::cli::version;
use crate::data::chat::strftime::strftime;
use crate::gpu::{Arithmetic, GpuSummary, Tier, Tuning};

#[derive(Serialize)]
pub(super) struct About {
    pub version: &'static str,
    pub commit: Option<&'static str>,
    /// In UTC.
    pub date: String,
    pub gpu: GpuSummary,
    pub tier: Tier,
    pub arithmetic: Arithmetic,
    /// The chosen shapes of the kernels.
    pub tuning: Tuning,
    /// Measurements of each case.
    pub runs: usize,
    /// Before the first suite.
    pub ceilings: Ceilings,
}

impl About {
    pub fn new(bench: &Bench) -> About {
        let gpu = &bench.gpu;
        About {
            version: env!("CARGO_PKG_VERSION"),
            commit: version::COMMIT,
            date: strftime("%Y-%m-%dT%H:%M:%SZ", SystemTime::now()),
            gpu: gpu.summary().clone(),
            tier: gpu.tier(),
            arithmetic: gpu.arithmetic(),
            tuning: gpu.tuning(),
            runs: bench.runs,
            ceilings: bench.ceilings,
        }
    }
}
