//! `oaif bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::gpu::{GpuArgs, GpuPlan};
use super::paths::model_dir;
use super::{ensure, positive};
use crate::bench::{Shape, Sweep};
use crate::error::Result;

/// What can be timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Every kernel, and matrix products of usual shapes
    Kernels,
    /// Forward and backward passes, scoring, updates
    Step,
    /// Tokens a second at 1, 16 and 64 sequences
    Decode,
    /// Whole online steps with their phases
    Align,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to time [default: all]
    #[arg(value_name = "WHAT")]
    suite: Option<Suite>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Measurements of each case, of which the median and the fastest are told
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// A model with random weights: stories260k, c192 or smollm2-135m [default: stories260k]
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    shape: Option<String>,
    /// Folder of a model to time instead
    #[arg(long, value_name = "DIR", alias = "model-name-or-path")]
    model: Option<PathBuf>,
    /// step: a series instead, over the tokens of a step, the context of a sequence, or prompts shared and repeated
    #[arg(long, value_name = "tokens|context|sharing")]
    sweep: Option<String>,
    /// align: folder of a model that judges by likelihood [default: the longer response wins]
    #[arg(long, value_name = "DIR")]
    judge_model: Option<PathBuf>,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// The model that is timed.
#[derive(Debug)]
pub(crate) enum Model {
    Random(Shape),
    Folder(PathBuf),
}

/// `oaif bench`, checked.
#[derive(Debug)]
pub(crate) struct BenchPlan {
    pub suites: Vec<Suite>,
    pub json: bool,
    pub runs: usize,
    pub model: Model,
    pub sweep: Option<Sweep>,
    /// Of a model that judges by likelihood.
    pub judge_model: Option<PathBuf>,
    pub gpu: GpuPlan,
}

impl BenchArgs {
    pub fn plan(self) -> Result<BenchPlan> {
        let only = |flag: &str, given: bool, owners: &[Suite], wanted: &str| {
            let of_use = self.suite.is_none_or(|suite| owners.contains(&suite));
            ensure(
                !given || of_use,
                flag,
                "this flag",
                &format!("of use here: it belongs to oaif bench {wanted}"),
            )
        };
        let models = [Suite::Step, Suite::Decode, Suite::Align];
        only("--shape", self.shape.is_some(), &models, "step, decode and align")?;
        only("--model", self.model.is_some(), &models, "step, decode and align")?;
        only("--judge-model", self.judge_model.is_some(), &[Suite::Align], "align")?;
        let sweeps = self.suite == Some(Suite::Step) || self.sweep.is_none();
        ensure(sweeps, "--sweep", "this flag", "of use here: it belongs to oaif bench step")?;
        Ok(BenchPlan {
            suites: self.suite.map_or(Suite::value_variants().to_vec(), |suite| vec![suite]),
            json: self.json,
            runs: positive("--runs", self.runs)?,
            model: match &self.model {
                Some(dir) => Model::Folder(model_dir("--model", dir)?),
                None => Model::Random(Shape::named(self.shape.as_deref().unwrap_or(Shape::names()[0]))?),
            },
            sweep: self.sweep.as_deref().map(Sweep::named).transpose()?,
            judge_model: self.judge_model.as_ref().map(|dir| model_dir("--judge-model", dir)).transpose()?,
            gpu: self.gpu.plan(false),
        })
    }
}
