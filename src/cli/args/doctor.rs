//! `oaif doctor`.

use clap::Args;

use super::gpu::{GpuArgs, GpuPlan};
use crate::error::Result;

/// `oaif doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print the results as one JSON object
    #[arg(long)]
    json: bool,
    /// List the test of every kernel against the f64 reference
    #[arg(long)]
    kernels: bool,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// `oaif doctor`, checked.
#[derive(Debug)]
pub(crate) struct DoctorPlan {
    pub json: bool,
    pub kernels: bool,
    pub gpu: GpuPlan,
}

impl DoctorArgs {
    pub fn plan(self) -> Result<DoctorPlan> {
        Ok(DoctorPlan { json: self.json, kernels: self.kernels, gpu: self.gpu.plan(false) })
    }
}
