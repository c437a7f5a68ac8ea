//! `oaif demo`.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::gpu::{GpuArgs, GpuPlan};
use super::paths::run_dir;
use super::{ensure, positive, shortest};
use crate::demo::exam::{MAX_NEW_TOKENS, TEMPERATURE};
use crate::demo::models::{JudgeKind, JudgeSize};
use crate::demo::oracle::Instruction;
use crate::error::{Error, Result};
use crate::generate::SamplingParams;
use crate::preference::PreferenceLoss;
use crate::train::options::{AlignOptions, TrainOptions};
use crate::train::run_dir::Resume;

impl ValueEnum for JudgeSize {
    fn value_variants<'a>() -> &'a [JudgeSize] {
        &[JudgeSize::Small, JudgeSize::Medium, JudgeSize::Large]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            JudgeSize::Small => "small",
            JudgeSize::Medium => "medium",
            JudgeSize::Large => "large",
        }))
    }
}

impl ValueEnum for JudgeKind {
    fn value_variants<'a>() -> &'a [JudgeKind] {
        &[JudgeKind::Likelihood, JudgeKind::Prompted]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            JudgeKind::Likelihood => {
                PossibleValue::new("likelihood").help("Prefers the summary with the higher log-probability")
            }
            JudgeKind::Prompted => {
                PossibleValue::new("prompted").help("Reads both summaries and answers 1 or 2")
            }
        })
    }
}

impl ValueEnum for Instruction {
    fn value_variants<'a>() -> &'a [Instruction] {
        &Instruction::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let name = match self {
            Instruction::Accurate => "accurate",
            Instruction::Short => "short",
            Instruction::VeryShort => "very-short",
            Instruction::Cheerful => "cheerful",
        };
        Some(PossibleValue::new(name).help(format!("\"{}\"", self.text())))
    }
}

/// Serialises a value as its name on the command line.
fn by_name<T: ValueEnum, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.to_possible_value().expect("no value is skipped").get_name())
}

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct DemoArgs {
    /// Loss: dpo (or sigmoid), ipo, or slic (or hinge)
    #[arg(long, value_name = "NAME", alias = "loss-type", default_value = "dpo")]
    loss: String,
    /// Instruction of the judge: the quality that it prefers in a summary
    #[arg(long, value_name = "NAME", default_value = "accurate")]
    #[serde(serialize_with = "by_name")]
    instruction: Instruction,
    /// Size of the judge
    #[arg(long, value_name = "SIZE", default_value = "large")]
    #[serde(serialize_with = "by_name")]
    judge: JudgeSize,
    /// Kind of the judge
    #[arg(long, value_name = "KIND", default_value = "likelihood")]
    #[serde(serialize_with = "by_name")]
    judge_kind: JudgeKind,
    /// Number of training steps
    #[arg(long, value_name = "N", alias = "max-steps", default_value_t = 120)]
    steps: usize,
    /// Random seed of the prompt order and sampling
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u32,
    /// Run folder, with report.html and summary.json
    #[arg(long, value_name = "RUN", default_value = "demo-run")]
    output_dir: PathBuf,
    /// Replace an existing run in --output-dir
    #[arg(long, alias = "overwrite")]
    #[serde(skip)]
    overwrite_output_dir: bool,
    /// Resume from a checkpoint: its folder, or last for the newest in --output-dir
    #[arg(long, value_name = "PATH|last", num_args = 0..=1, default_missing_value = "last")]
    #[serde(skip)]
    resume_from_checkpoint: Option<String>,
    /// Peak learning rate
    #[arg(long, value_name = "RATE", help_heading = "Training", default_value_t = 3e-4)]
    learning_rate: f64,
    /// Strength of the KL regularisation towards the reference model [default: 0.1; slic: 0.002]
    #[arg(long, value_name = "B", help_heading = "Training")]
    beta: Option<f64>,
    /// Number of prompts per step
    #[arg(long, value_name = "N", help_heading = "Training", default_value_t = 32)]
    per_device_train_batch_size: usize,
    /// Number of held-out posts on which win rates are measured
    #[arg(long, value_name = "N", default_value_t = 400)]
    held_out: usize,
    #[command(flatten)]
    #[serde(flatten)]
    gpu: GpuArgs,
}

/// `oaif demo`, checked.
#[derive(Debug)]
pub(crate) struct DemoPlan {
    pub instruction: Instruction,
    pub judge: JudgeSize,
    pub judge_kind: JudgeKind,
    pub train: TrainOptions,
    pub align: AlignOptions,
    /// Held-out posts.
    pub held_out: usize,
    pub gpu: GpuPlan,
    /// Every flag with its resolved value, for `run.json`.
    pub config: Value,
}

/// Number of checkpoints. Each is evaluated and gives a point of the curves.
const STAGES: usize = 8;

impl DemoArgs {
    pub fn plan(mut self) -> Result<DemoPlan> {
        if self.overwrite_output_dir && self.resume_from_checkpoint.is_some() {
            let why = "would delete the run that --resume-from-checkpoint resumes: give one of the two";
            return Err(Error::config("--overwrite-output-dir", why));
        }
        let rate = self.learning_rate;
        ensure(rate > 0.0 && rate.is_finite(), "--learning-rate", rate, "a positive number")?;
        // With IPO's default of 1 the target log-ratio is half a nat, too little for a visible effect in a demo.
        let beta = self.beta.or((self.loss == "ipo").then_some(0.1));
        let loss = PreferenceLoss::parse(&self.loss, beta.map(|b| b as f32), false)?;
        self.beta = Some(shortest(loss.beta()));
        let steps = positive("--steps", self.steps)?;
        let train = TrainOptions {
            output_dir: Some(run_dir(&self.output_dir)?),
            overwrite: self.overwrite_output_dir,
            resume: self.resume_from_checkpoint.as_deref().map(Resume::from),
            learning_rate: rate,
            warmup_steps: steps / 16,
            batch_size: positive("--per-device-train-batch-size", self.per_device_train_batch_size)?,
            max_steps: Some(steps),
            seed: self.seed,
            save_steps: Some(steps.div_ceil(STAGES)),
            ..TrainOptions::default()
        };
        let align = AlignOptions {
            sampling: SamplingParams { temperature: TEMPERATURE, ..SamplingParams::default() },
            max_new_tokens: MAX_NEW_TOKENS,
            ..AlignOptions::new(loss)
        };
        let config = serde_json::to_value(&self)
            .map_err(|e| Error::config("arguments", format!("cannot be written as JSON: {e}")))?;
        let (instruction, judge, judge_kind) = (self.instruction, self.judge, self.judge_kind);
        let held_out = positive("--held-out", self.held_out)?;
        let gpu = self.gpu.plan(false);
        Ok(DemoPlan { instruction, judge, judge_kind, train, align, held_out, gpu, config })
    }
}
