//! Flags of the evaluation during training.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::paths::{InputPath, given, input_file};
use super::positive;
use crate::error::Result;

/// Flags of the evaluation on held-out rows.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Evaluation")]
#[serde(rename_all = "kebab-case")]
pub(super) struct EvaluationArgs {
    /// Held-out rows for evaluation at the end and every --eval-steps. align: prompts, whose responses the judge compares with
    /// those of the starting model; dpo, reward: pairs, for loss and accuracy
    #[arg(long, value_name = "FILE")]
    eval_dataset: Option<PathBuf>,
    /// Steps between evaluations [default: one evaluation, at the end]
    #[arg(long, value_name = "N", requires = "eval_dataset")]
    eval_steps: Option<usize>,
    /// Maximum number of rows of --eval-dataset; the first ones are used [default: align: 64; dpo, reward: 512]
    #[arg(long, value_name = "N", requires = "eval_dataset")]
    max_eval_samples: Option<usize>,
}

/// The rows of the evaluation, checked.
#[derive(Debug)]
pub(crate) struct HeldOut {
    pub file: PathBuf,
    /// Maximum number of rows.
    pub most: usize,
    /// Steps between evaluations; `None`: one, at the end.
    pub every: Option<usize>,
}

impl EvaluationArgs {
    /// The file that the evaluation reads, with its flag.
    pub(super) fn inputs(&self) -> Vec<InputPath> {
        given([("--eval-dataset", self.eval_dataset.clone())])
    }

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
