//! The rows that a run is evaluated on.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::paths::input_file;
use super::positive;
use crate::error::Result;

/// What a run is evaluated on.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Evaluation")]
#[serde(rename_all = "kebab-case")]
pub(super) struct EvaluationArgs {
    /// Rows that are not trained on, for an evaluation at the end and after every --eval-steps. In align they are prompts: the
    /// judge compares the policy's answers with those of the start, answered once at the beginning. In dpo and reward they
    /// are pairs, of which loss and accuracy are told
    #[arg(long, value_name = "FILE")]
    eval_dataset: Option<PathBuf>,
    /// Steps between two evaluations [default: one at the end]
    #[arg(long, value_name = "N", requires = "eval_dataset")]
    eval_steps: Option<usize>,
    /// Most rows of --eval-dataset, from the first on [default: 64 in align, 512 in dpo and reward]
    #[arg(long, value_name = "N", requires = "eval_dataset")]
    max_eval_samples: Option<usize>,
}

/// Rows that a run is evaluated on.
#[derive(Debug)]
pub(crate) struct HeldOut {
    pub file: PathBuf,
    /// How many of them.
    pub most: usize,
    /// Steps between two evaluations; `None`: one at the end.
    pub every: Option<usize>,
}

impl EvaluationArgs {
    pub(super) fn plan(&mut self, default_most: usize) -> Result<Option<HeldOut>> {
        let Some(file) = self.eval_dataset.as_deref() else { return Ok(None) };
        let most = *self.max_eval_samples.get_or_insert(default_most);
        Ok(Some(HeldOut {
            file: input_file("--eval-dataset", file)?,
            most: positive("--max-eval-samples", most)?,
            every: self.eval_steps.map(|n| positive("--eval-steps", n)).transpose()?,
        }))
    }
}
