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
            JudgeKind::Likelihood => PossibleValue::new("likelihood")
                .help("It prefers the summary that it would rather have written"),
            JudgeKind::Prompted => {
                PossibleValue::new("prompted").help("It reads both summaries and says 1 or 2")
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

/// A value by its name on the command line.
fn by_name<T: ValueEnum, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.to_possible_value().expect("no value is skipped").get_name())
}

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct DemoArgs {
    /// dpo (also called sigmoid), ipo, or slic (hinge)
    #[arg(long, value_name = "NAME", alias = "loss-type", default_value = "dpo")]
    loss: String,
    /// What the judge is asked to look for
    #[arg(long, value_name = "NAME", default_value = "accurate")]
    #[serde(serialize_with = "by_name")]
    instruction: Instruction,
    /// How large a judge
    #[arg(long, value_name = "SIZE", default_value = "large")]
    #[serde(serialize_with = "by_name")]
    judge: JudgeSize,
    /// How it judges
    #[arg(long, value_name = "KIND", default_value = "likelihood")]
    #[serde(serialize_with = "by_name")]
    judge_kind: JudgeKind,
    /// Training steps
    #[arg(long, value_name = "N", alias = "max-steps", default_value_t = 120)]
    steps: usize,
    /// Seed of the prompts' order and of the samples
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u32,
    /// Folder that the run, report.html and summary.json are written to
    #[arg(long, value_name = "RUN", default_value = "demo-run")]
    output_dir: PathBuf,
    /// Replace the run that is there already
    #[arg(long, alias = "overwrite")]
    #[serde(skip)]
    overwrite_output_dir: bool,
    /// Go on with the run that is there, from its last checkpoint
    #[arg(long, value_name = "PATH|last", num_args = 0..=1, default_missing_value = "last")]
    #[serde(skip)]
    resume_from_checkpoint: Option<String>,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", help_heading = "Training", default_value_t = 3e-4)]
    learning_rate: f64,
    /// Strength of the pull towards the starting policy [default: 0.1, slic 0.002]
    #[arg(long, value_name = "B", help_heading = "Training")]
    beta: Option<f64>,
    /// Prompts of a step
    #[arg(long, value_name = "N", help_heading = "Training", default_value_t = 32)]
    per_device_train_batch_size: usize,
    /// Posts left out of training that win rates are measured on
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

/// Points of the curves: how often the policy is put by for the evaluation.
const STAGES: usize = 8;

impl DemoArgs {
    pub fn plan(mut self) -> Result<DemoPlan> {
        if self.overwrite_output_dir && self.resume_from_checkpoint.is_some() {
            let why = "would delete what --resume-from-checkpoint goes on from: give one of the two";
            return Err(Error::config("--overwrite-output-dir", why));
        }
        let rate = self.learning_rate;
        ensure(rate > 0.0 && rate.is_finite(), "--learning-rate", rate, "a positive number")?;
        // IPO's usual 1 wants a log-ratio of half a nat: too little to see within a demo's steps.
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
            .map_err(|e| Error::config("arguments", format!("cannot be written down: {e}")))?;
        let (instruction, judge, judge_kind) = (self.instruction, self.judge, self.judge_kind);
        let held_out = positive("--held-out", self.held_out)?;
        let gpu = self.gpu.plan(false);
        Ok(DemoPlan { instruction, judge, judge_kind, train, align, held_out, gpu, config })
    }
}
