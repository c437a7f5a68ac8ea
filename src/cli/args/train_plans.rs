//! The checked plans of the training commands, and the inputs that they read.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::gpu::GpuPlan;
use super::held_out::HeldOut;
use crate::cli::fetch::{Fetch, Input, What};
use crate::data::rows::Columns;
use crate::error::Result;
use crate::gpu::Limits;
use crate::judge::config::JudgeConfig;
use crate::model::ModelConfig;
use crate::train::options::{AlignOptions, DpoOptions, RewardOptions, TrainOptions};
use crate::train::run_dir::check_free;
#[cfg(feature = "ui")]
use crate::ui::UiOptions;

/// A training run, checked.
#[derive(Debug)]
pub(crate) struct TrainPlan {
    pub model: PathBuf,
    /// The files of the rows, or their name on the Hub; empty only in a dry run.
    pub dataset: Vec<PathBuf>,
    pub columns: Columns,
    pub options: TrainOptions,
    /// The default learning rate of a model of [`WIDTH`], if none was given.
    pub usual_rate: Option<f64>,
    pub gpu: GpuPlan,
    pub dry_run: bool,
    /// The limits of the target GPU, for a dry run.
    pub limits: Option<Limits>,
    /// The file of the trace, with `gpu.profile`.
    pub trace: Option<PathBuf>,
    /// Write the report at the end.
    pub report: bool,
    /// Where to serve the page of the run, with `--ui`.
    #[cfg(feature = "ui")]
    pub ui: Option<UiOptions>,
    /// The working folder of a rank other than 0.
    pub rank_folder: Option<TempDir>,
    /// All flags with their resolved values, for `run.json`, which is also a `--config` file that repeats the run.
    pub config: Value,
}

/// `oaif align`, checked.
#[derive(Debug)]
pub(crate) struct AlignPlan {
    pub train: TrainPlan,
    pub align: AlignOptions,
    pub judge: JudgeConfig,
    /// The rows of the evaluation.
    pub held_out: Option<HeldOut>,
}

/// `oaif dpo`, checked.
#[derive(Debug)]
pub(crate) struct DpoPlan {
    pub train: TrainPlan,
    pub dpo: DpoOptions,
    /// The rows of the evaluation.
    pub held_out: Option<HeldOut>,
}

/// `oaif reward`, checked.
#[derive(Debug)]
pub(crate) struct RewardPlan {
    pub train: TrainPlan,
    pub reward: RewardOptions,
    /// The rows of the evaluation.
    pub held_out: Option<HeldOut>,
}

/// `oaif sft`, checked.
#[derive(Debug)]
pub(crate) struct SftPlan {
    pub train: TrainPlan,
    /// Append the end-of-sequence token to completions.
    pub append_eos: bool,
}

/// The hidden size that the default learning rates are for.
const WIDTH: f64 = 2048.0;

/// The default learning rate of a model whose hidden size is `width`, from the one at [`WIDTH`]. Adam's best rate falls as
/// models grow wider: by 1/width for matrices (Yang et al. 2022, "Tensor Programs V"), by width^-0.78 in fits over Llamas.
fn rate_of_width(rate: f64, width: usize) -> f64 {
    let scaled = rate * (WIDTH / width as f64).powf(0.75);
    format!("{scaled:.1e}").parse().expect("a number")
}

impl TrainPlan {
    /// The parts of models to read: a dry run needs no weights.
    fn model(&self) -> What {
        if self.dry_run { What::ModelWithoutWeights } else { What::Model }
    }
}

impl Fetch for TrainPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        let what = self.model();
        let model = Input::new("--model", what, &mut self.model);
        let adapter = self.options.adapter.as_mut();
        let adapter = adapter.map(|path| Input::new("--adapter", What::Adapter, path));
        let rows = Input::rows("--dataset", &mut self.dataset);
        [Some(model), adapter, rows].into_iter().flatten().collect()
    }

    fn check(&self) -> Result<()> {
        if self.dry_run { Ok(()) } else { check_free(self.options.folder(), &self.options.start()) }
    }

    fn config(&mut self) -> Option<&mut Value> {
        Some(&mut self.config)
    }

    fn complete(&mut self) {
        // Loading the model reports any error.
        let Some((rate, model)) = self.usual_rate.take().zip(ModelConfig::load(&self.model).ok()) else {
            return;
        };
        self.options.learning_rate = rate_of_width(rate, model.architecture.hidden);
        self.config["learning-rate"] = self.options.learning_rate.into();
    }
}

/// A plan that trains: `$inputs` are its inputs, the rest is that of its training.
macro_rules! fetches {
    ($($plan:ty: $inputs:expr),*) => {$(
        impl Fetch for $plan {
            fn inputs(&mut self) -> Vec<Input<'_>> {
                let inputs: fn(&mut $plan) -> Vec<Input<'_>> = $inputs;
                inputs(self)
            }

            fn check(&self) -> Result<()> {
                self.train.check()
            }

            fn config(&mut self) -> Option<&mut Value> {
                self.train.config()
            }

            fn complete(&mut self) {
                self.train.complete();
            }
        }
    )*};
}

fetches!(
    AlignPlan: |plan| {
        let what = plan.train.model();
        let judge = plan.judge.model_paths_mut().into_iter();
        let judge = judge.map(|path| Input::new("--judge-model", what, path));
        plan.train.inputs().into_iter().chain(judge).collect()
    },
    DpoPlan: |plan| plan.train.inputs(),
    RewardPlan: |plan| plan.train.inputs(),
    SftPlan: |plan| plan.train.inputs()
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_learning_rate_falls_as_models_grow_wider() {
        let rates = [64, 576, 960, 2048, 4096].map(|width| rate_of_width(1e-5, width));
        assert_eq!(rates, [1.3e-4, 2.6e-5, 1.8e-5, 1e-5, 5.9e-6]);
    }
}
