//! `oaif judge`. The flags of the judge itself, which other commands have too, are in [`super::judge`].

use std::path::PathBuf;

use clap::Args;

use super::gpu::{BaseDtypeArgs, GpuArgs, GpuPlan};
use super::judge::{JudgeArgs, PROTOCOL};
use super::paths::{input_file, optional_output};
use crate::cli::fetch::{Fetch, Input, What};
use crate::data::rows::Columns;
use crate::error::Result;
use crate::judge::config::JudgeConfig;
use crate::model::FrozenFormat;

/// `oaif judge`.
#[derive(Debug, Args)]
#[command(after_help = PROTOCOL)]
pub(crate) struct JudgePairsArgs {
    /// File of {"prompt","response_1","response_2"} rows; - reads them from standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Output file, with one JSON line per row [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Column of the prompt in --input
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    prompt_column: String,
    #[command(flatten)]
    judge: JudgeArgs,
    #[command(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// `oaif judge`, checked.
#[derive(Debug)]
pub(crate) struct JudgePlan {
    pub input: PathBuf,
    pub columns: Columns,
    /// `None`: standard output.
    pub output: Option<PathBuf>,
    pub judge: JudgeConfig,
    pub base_dtype: Option<FrozenFormat>,
    pub gpu: GpuPlan,
}

impl JudgePairsArgs {
    pub fn plan(mut self) -> Result<JudgePlan> {
        Ok(JudgePlan {
            input: input_file("--input", &self.input)?,
            columns: Columns { prompt: self.prompt_column, ..Columns::default() },
            output: optional_output(self.output)?,
            judge: self.judge.plan()?,
            base_dtype: self.base_dtype.plan(),
            gpu: self.gpu.plan(false),
        })
    }
}

impl Fetch for JudgePlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        let judge = self.judge.model_paths_mut().into_iter();
        judge.map(|path| Input::new("--judge-model", What::Model, path)).collect()
    }
}
