//! `oaif chat`.

use clap::Args;

use super::gpu::{BaseDtypeArgs, GpuArgs, GpuPlan};
use super::policy::{PolicyArgs, PolicyFiles};
use super::sampling::{SamplingArgs, SamplingPlan};
use crate::cli::fetch::{Fetch, Input};
use crate::error::Result;
use crate::model::FrozenFormat;

/// `oaif chat`.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// System message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Random seed of sampling
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u32,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// `oaif chat`, checked.
#[derive(Debug)]
pub(crate) struct ChatPlan {
    pub policy: PolicyFiles,
    pub system: Option<String>,
    pub sampling: SamplingPlan,
    pub seed: u32,
    pub base_dtype: Option<FrozenFormat>,
    pub gpu: GpuPlan,
}

impl ChatArgs {
    pub fn plan(mut self) -> Result<ChatPlan> {
        Ok(ChatPlan {
            policy: self.policy.plan()?,
            system: self.system,
            sampling: self.sampling.plan(0.7, 1024)?,
            seed: self.seed,
            base_dtype: self.base_dtype.plan(),
            gpu: self.gpu.plan(false),
        })
    }
}

impl Fetch for ChatPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        self.policy.inputs("--model", "--adapter")
    }
}
