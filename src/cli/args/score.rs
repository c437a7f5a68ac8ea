//! `oaif score`.

use std::path::PathBuf;

use clap::Args;

use super::gpu::{BaseDtypeArgs, GpuArgs, GpuPlan};
use super::paths::{input_file, optional_output};
use super::policy::{PolicyArgs, PolicyFiles};
use crate::cli::fetch::{Fetch, Input};
use crate::data::rows::Columns;
use crate::error::Result;
use crate::model::FrozenFormat;

/// `oaif score`.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// File of {"prompt","completion"} rows; - reads them from standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Output file, with one JSON line per row [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Column of the prompt in --input
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    prompt_column: String,
    /// Column of the completion in --input
    #[arg(long, value_name = "NAME", default_value = "completion")]
    completion_column: String,
    #[command(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// `oaif score`, checked.
#[derive(Debug)]
pub(crate) struct ScorePlan {
    pub policy: PolicyFiles,
    pub input: PathBuf,
    pub columns: Columns,
    /// `None`: standard output.
    pub output: Option<PathBuf>,
    pub base_dtype: Option<FrozenFormat>,
    pub gpu: GpuPlan,
}

impl ScoreArgs {
    pub fn plan(self) -> Result<ScorePlan> {
        let columns =
            Columns { prompt: self.prompt_column, completion: self.completion_column, ..Columns::default() };
        Ok(ScorePlan {
            policy: self.policy.plan()?,
            input: input_file("--input", &self.input)?,
            columns,
            output: optional_output(self.output)?,
            base_dtype: self.base_dtype.plan(),
            gpu: self.gpu.plan(false),
        })
    }
}

impl Fetch for ScorePlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        self.policy.inputs("--model", "--adapter")
    }
}
