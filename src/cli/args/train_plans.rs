//! What the commands that train ask for, checked, and what they read.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::gpu::GpuPlan;
use super::held_out::HeldOut;
use crate::cli::fetch::{Fetch, Input, What};
use crate::data::rows::Columns;
use crate::gpu::Limits;
use crate::judge::config::JudgeConfig;
use crate::train::options::{AlignOptions, DpoOptions, RewardOptions, TrainOptions};
#[cfg(feature = "ui")]
use crate::ui::UiOptions;

/// A training run, checked.
#[derive(Debug)]
pub(crate) struct TrainPlan {
    pub model: PathBuf,
    /// The files of its rows, or their name on the hub; none in a dry run alone.
    pub dataset: Vec<PathBuf>,
    pub columns: Columns,
    pub options: TrainOptions,
    pub gpu: GpuPlan,
    pub dry_run: bool,
    /// Those of the GPU in mind, for a dry run.
    pub limits: Option<Limits>,
    /// Where the trace goes, when `gpu.profile`.
    pub trace: Option<PathBuf>,
    /// Write the report at the end.
    pub report: bool,
    /// Where the run's page is to be had, if it is to be.
    #[cfg(feature = "ui")]
    pub ui: Option<UiOptions>,
    /// Where a rank other than 0 works.
    pub rank_folder: Option<TempDir>,
    /// Every flag with its resolved value, for `run.json`. Itself a `--config` file that repeats the run.
    pub config: Value,
}

/// `oaif align`, checked.
#[derive(Debug)]
pub(crate) struct AlignPlan {
    pub train: TrainPlan,
    pub align: AlignOptions,
    pub judge: JudgeConfig,
    /// What it is evaluated on.
    pub held_out: Option<HeldOut>,
}

/// `oaif dpo`, checked.
#[derive(Debug)]
pub(crate) struct DpoPlan {
    pub train: TrainPlan,
    pub dpo: DpoOptions,
    /// What it is evaluated on.
    pub held_out: Option<HeldOut>,
}

/// `oaif reward`, checked.
#[derive(Debug)]
pub(crate) struct RewardPlan {
    pub train: TrainPlan,
    pub reward: RewardOptions,
    /// What it is evaluated on.
    pub held_out: Option<HeldOut>,
}

/// `oaif sft`, checked.
#[derive(Debug)]
pub(crate) struct SftPlan {
    pub train: TrainPlan,
    /// End every completion with the end-of-sequence token.
    pub append_eos: bool,
}

impl TrainPlan {
    /// What it reads of models: a dry run needs no weights.
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

    fn config(&mut self) -> Option<&mut Value> {
        Some(&mut self.config)
    }
}

impl Fetch for AlignPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        let what = self.train.model();
        let judge = self.judge.models_mut().into_iter();
        let judge = judge.map(|path| Input::new("--judge-model", what, path));
        self.train.inputs().into_iter().chain(judge).collect()
    }

    fn config(&mut self) -> Option<&mut Value> {
        self.train.config()
    }
}

impl Fetch for DpoPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        self.train.inputs()
    }

    fn config(&mut self) -> Option<&mut Value> {
        self.train.config()
    }
}

impl Fetch for RewardPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        self.train.inputs()
    }

    fn config(&mut self) -> Option<&mut Value> {
        self.train.config()
    }
}

impl Fetch for SftPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        self.train.inputs()
    }

    fn config(&mut self) -> Option<&mut Value> {
        self.train.config()
    }
}
