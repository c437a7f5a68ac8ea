//! Flags of the optimiser.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::ensure;
use crate::collective::SumDtype;
use crate::error::Result;
use crate::optim::OptimiserKind;

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Optim {
    #[value(aliases = ["adamw_torch", "adamw_torch_fused"])]
    Adamw,
    Adafactor,
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Optimisation")]
#[serde(rename_all = "kebab-case")]
pub(super) struct OptimisationArgs {
    /// Peak learning rate [default: 1e-5 × (2048 / hidden size)^0.75, such as 2.6e-5 for SmolLM2-135M; 5 times that with
    /// LoRA; in sft twice that, and 20 times with LoRA]
    #[arg(long, value_name = "RATE", alias = "lr")]
    pub(super) learning_rate: Option<f64>,
    /// Learning rate schedule
    #[arg(
        long,
        value_name = "NAME",
        alias = "lr-scheduler",
        value_parser = schedules(),
        default_value = "linear"
    )]
    pub(super) lr_scheduler_type: String,
    /// Number of warmup steps, in which the learning rate rises linearly from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) warmup_steps: usize,
    /// Warmup steps as a fraction of all steps; used if --warmup-steps is 0
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(super) warmup_ratio: f64,
    /// Optimiser
    #[arg(long, value_name = "NAME", default_value = "adamw")]
    optim: Optim,
    /// Decay rate of AdamW's first moment
    #[arg(long, value_name = "B", default_value_t = 0.9)]
    adam_beta1: f64,
    /// Decay rate of AdamW's second moment
    #[arg(long, value_name = "B", default_value_t = 0.999)]
    adam_beta2: f64,
    /// Added to AdamW's denominator for numerical stability
    #[arg(long, value_name = "E", default_value = "1e-8")]
    adam_epsilon: f64,
    /// Weight decay; not applied to norm weights
    #[arg(long, value_name = "D", default_value_t = 0.0)]
    weight_decay: f64,
    /// Maximum gradient norm, for clipping; 0 turns clipping off
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    pub(super) max_grad_norm: f64,
    /// Recompute activations in the backward pass instead of storing them: less memory, more time
    #[arg(long)]
    pub(super) gradient_checkpointing: bool,
    /// Format in which processes exchange gradients: f32, or bf16 for half the bytes
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    pub(super) reduce_dtype: ReduceDtype,
    /// Shard AdamW's state over the processes, when it does not fit on one GPU
    #[arg(long)]
    pub(super) shard_optim: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReduceDtype {
    F32,
    #[value(alias = "bfloat16")]
    Bf16,
}

impl ReduceDtype {
    pub fn dtype(self) -> SumDtype {
        match self {
            ReduceDtype::F32 => SumDtype::F32,
            ReduceDtype::Bf16 => SumDtype::Bf16,
        }
    }
}

/// The values of `--lr-scheduler-type`. `run.json` has the name as it was given.
fn schedules() -> [PossibleValue; 4] {
    [
        PossibleValue::new("linear").help("Falls linearly to 0 at the last step"),
        PossibleValue::new("cosine").help("Falls to 0 at the last step along half a cosine"),
        PossibleValue::new("constant").help("Constant from the first step, without warmup"),
        PossibleValue::new("constant_with_warmup")
            .alias("constant-with-warmup")
            .help("Constant after the warmup"),
    ]
}

impl OptimisationArgs {
    pub(super) fn optimiser(&self) -> Result<OptimiserKind> {
        let (beta1, beta2, epsilon, decay) =
            (self.adam_beta1, self.adam_beta2, self.adam_epsilon, self.weight_decay);
        for (flag, beta) in [("--adam-beta1", beta1), ("--adam-beta2", beta2)] {
            ensure((0.0..1.0).contains(&beta), flag, beta, "at least 0 and below 1")?;
        }
        ensure(epsilon > 0.0 && epsilon.is_finite(), "--adam-epsilon", epsilon, "a positive number")?;
        ensure(decay >= 0.0 && decay.is_finite(), "--weight-decay", decay, "0 or a positive number")?;
        let weight_decay = decay as f32;
        Ok(match self.optim {
            Optim::Adamw => OptimiserKind::AdamW {
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                epsilon: epsilon as f32,
                weight_decay,
            },
            Optim::Adafactor => OptimiserKind::Adafactor { weight_decay },
        })
    }
}
