//! What a training run is asked to do.

use std::path::{Path, PathBuf};

use derive_setters::Setters;

use super::policy_loss::OnlineLoss;
use super::rows::LengthLimits;
use super::run_dir::{Resume, Start};
use super::schedule::ScheduleKind;
use crate::collective::{Ranks, SumDtype};
use crate::error::Result;
use crate::generate::SamplingParams;
use crate::gpu::Arena;
use crate::model::lora::LoraConfig;
use crate::model::{FrozenFormat, Model};
use crate::optim::{Optimiser, OptimiserKind};
use crate::preference::Objective;

/// How the reference model follows the policy: after every `steps` steps π₀ ← α π + (1 − α) π₀ (TR-DPO, Gorbatovski et al.
/// 2024, arXiv 2404.09656).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceSync {
    /// α, above 0 and at most 1: with 1 the reference becomes the policy.
    pub alpha: f32,
    /// Steps between two moves.
    pub steps: usize,
}

/// Common to every kind of training.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct TrainOptions {
    /// Where a run is written; `None` for a [`Trainer`](super::Trainer) that an application drives.
    #[setters(skip)]
    pub output_dir: Option<PathBuf>,
    /// Of a run alone: replace an earlier one in `output_dir`.
    pub overwrite: bool,
    /// Of a run alone: go on from this checkpoint.
    #[setters(into)]
    pub resume: Option<Resume>,
    /// What may differ from the run that wrote the checkpoint, by the names of the options, such as `learning-rate` or
    /// `judge`. Anything else that decides the numbers must be the same.
    #[setters(into)]
    pub allow_changes: Vec<String>,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How it changes.
    pub schedule: ScheduleKind,
    /// Steps in which it climbs from 0.
    pub warmup_steps: usize,
    /// The share of all steps in which it climbs from 0, where `warmup_steps` is 0.
    pub warmup_ratio: f64,
    /// Rows (prompts, pairs) of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Steps; `None`: what `epochs` makes.
    #[setters(into)]
    pub max_steps: Option<usize>,
    /// Passes over the dataset.
    pub epochs: f64,
    /// A LoRA adapter; `None` for full fine-tuning.
    #[setters(into)]
    pub lora: Option<LoraConfig>,
    /// An adapter to go on training, in PEFT's layout.
    #[setters(into)]
    pub adapter: Option<PathBuf>,
    /// Move the reference model towards the policy from time to time, in `dpo` and `align`, where all weights are trained;
    /// `None`: it is the model at the start.
    #[setters(into)]
    pub reference_sync: Option<ReferenceSync>,
    /// How matrices that are not trained are held on the device: the base under an adapter, the reference copy.
    /// `None`: as the model's files have them; a reference that moves is in f32.
    #[setters(into)]
    pub base_dtype: Option<FrozenFormat>,
    /// The optimiser.
    pub optimiser: OptimiserKind,
    /// Clip the gradient's norm to this; 0: do not.
    pub max_grad_norm: f32,
    /// Seed of the order of rows, of the adapter's start and of sampling.
    pub seed: u32,
    /// Of a run alone: steps between checkpoints; `None`: only at the end.
    #[setters(into)]
    pub save_steps: Option<usize>,
    /// Of a run alone: checkpoints kept.
    #[setters(into)]
    pub save_total_limit: Option<usize>,
    /// Of a run alone: write the metrics as an event file of TensorBoard, too, into the folder `tensorboard` of the run's.
    pub tensorboard: bool,
    /// Compute activations again in the backward pass rather than keep them.
    pub gradient_checkpointing: bool,
    /// Take the rows in an order drawn from the seed rather than the file's.
    pub shuffle: bool,
    /// Longest prompt in tokens; longer ones are skipped and counted. `None`: what the model takes.
    #[setters(into)]
    pub max_prompt_length: Option<usize>,
    /// Longest prompt and completion together, in tokens; longer rows are skipped and counted. In online training a prompt
    /// must leave room for the longest response.
    #[setters(into)]
    pub max_length: Option<usize>,
    /// The processes that train together; a step takes `batch_size` times `accumulation` rows for each of them.
    #[setters(skip)]
    pub ranks: Ranks,
    /// Divide the optimiser's state among the ranks: each updates a part of the weights, and gives it to the others.
    pub shard_optimiser: bool,
    /// How gradients are sent from rank to rank.
    pub reduce_dtype: SumDtype,
    /// How many there were when the run began, where it goes on from a checkpoint: its steps take as many rows as before.
    #[setters(skip)]
    pub(crate) ranks_at_start: Option<usize>,
}

impl Default for TrainOptions {
    /// As `oaif align` does it: one pass over the rows, full fine-tuning by AdamW, a learning rate of 1e-5 that falls to 0,
    /// 16 rows a step, no checkpoint before the end.
    fn default() -> TrainOptions {
        TrainOptions {
            output_dir: None,
            overwrite: false,
            resume: None,
            allow_changes: Vec::new(),
            learning_rate: 1e-5,
            schedule: ScheduleKind::Linear,
            warmup_steps: 0,
            warmup_ratio: 0.0,
            batch_size: 16,
            accumulation: 1,
            max_steps: None,
            epochs: 1.0,
            lora: None,
            adapter: None,
            reference_sync: None,
            base_dtype: None,
            optimiser: OptimiserKind::adamw(),
            max_grad_norm: 1.0,
            seed: 42,
            save_steps: None,
            save_total_limit: None,
            tensorboard: false,
            gradient_checkpointing: false,
            shuffle: true,
            max_prompt_length: None,
            max_length: None,
            ranks: Ranks::default(),
            shard_optimiser: false,
            reduce_dtype: SumDtype::F32,
            ranks_at_start: None,
        }
    }
}

impl TrainOptions {
    /// Sets [`TrainOptions::output_dir`].
    pub fn output_dir(self, dir: impl Into<PathBuf>) -> TrainOptions {
        TrainOptions { output_dir: Some(dir.into()), ..self }
    }

    /// The longest rows that are trained on by a model that takes `context` tokens.
    pub(super) fn length_limits(&self, context: usize) -> LengthLimits {
        let whole = self.max_length.unwrap_or(context).min(context);
        LengthLimits { prompt: self.max_prompt_length.unwrap_or(whole).min(whole), whole }
    }

    /// Steps of a run of `total` in which the learning rate climbs.
    pub(crate) fn warmup_of(&self, total: usize) -> usize {
        match self.warmup_by_ratio() {
            true => (self.warmup_ratio * total as f64).ceil() as usize,
            false => self.warmup_steps,
        }
    }

    /// Whether the warm-up is a share of all steps.
    pub(super) fn warmup_by_ratio(&self) -> bool {
        self.warmup_steps == 0 && self.warmup_ratio > 0.0
    }

    /// What updates a model's weights.
    pub(super) async fn optimiser_of(&self, model: &Model, arena: &Arena) -> Result<Optimiser> {
        let shards = (self.shard_optimiser && !self.ranks.is_alone()).then_some(&self.ranks);
        let (gpu, weights) = (model.gpu(), model.trained());
        Optimiser::with_shards(gpu, weights, self.optimiser, self.max_grad_norm, arena, shards).await
    }

    /// Rows that a step learns from.
    pub(crate) fn rows_of_step(&self) -> usize {
        self.batch_size.saturating_mul(self.accumulation).saturating_mul(self.ranks_of_step())
    }

    /// For how many ranks a step takes rows.
    pub(crate) fn ranks_of_step(&self) -> usize {
        self.ranks_at_start.unwrap_or(self.ranks.size())
    }

    /// Where a run is written, and rows that memory has no room for; empty: nowhere.
    pub(crate) fn folder(&self) -> &Path {
        self.output_dir.as_deref().unwrap_or(Path::new(""))
    }

    /// What to do about a run that is there already.
    pub fn start(&self) -> Start {
        match (&self.resume, self.overwrite) {
            (Some(resume), _) => Start::Resume(resume.clone()),
            (None, true) => Start::Overwrite,
            (None, false) => Start::New,
        }
    }
}

/// Training on given preferences, as `oaif dpo` does it.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct DpoOptions {
    /// The loss.
    #[setters(into)]
    pub loss: Objective,
    /// End every completion with the end-of-sequence token.
    pub append_eos: bool,
}

/// Training of a reward model, as `oaif reward` does it.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct RewardOptions {
    /// The weight of (chosen + rejected)², which keeps scores around 0; 0: none.
    pub center_rewards_coefficient: f32,
    /// End every completion with the end-of-sequence token.
    pub append_eos: bool,
}

impl DpoOptions {
    /// Completions as they are, to be followed by the end-of-sequence token.
    pub fn new(loss: impl Into<Objective>) -> DpoOptions {
        DpoOptions { loss: loss.into(), append_eos: true }
    }
}

impl Default for RewardOptions {
    /// Scores that are free, of completions that end with the end-of-sequence token.
    fn default() -> RewardOptions {
        RewardOptions { center_rewards_coefficient: 0.0, append_eos: true }
    }
}

/// Which pairs of a prompt's responses are learnt from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PairChoice {
    /// The response with the most wins against the one with the fewest.
    #[default]
    BestWorst,
    /// Every pair with a preference.
    All,
}

/// Training on online feedback, as `oaif align` does it.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct AlignOptions {
    /// The loss.
    #[setters(into)]
    pub loss: OnlineLoss,
    /// How responses are drawn.
    pub sampling: SamplingParams,
    /// Longest response in tokens.
    pub max_new_tokens: usize,
    /// Responses a prompt, at least 2; above 2 the best is set against the worst.
    pub num_samples: usize,
    /// Sequences decoded side by side; `None`: all of a step's, at most 64.
    #[setters(into)]
    pub slots: Option<usize>,
    /// Strings that end a response.
    #[setters(into)]
    pub stop: Vec<String>,
    /// Weigh the loss by the judge's probability rather than take its verdict as certain.
    pub soft_labels: bool,
    /// Which pairs of a prompt's responses are learnt from.
    pub pairs: PairChoice,
    /// Learn from a pair only where the judge's probability for the chosen response is at least this.
    pub min_confidence: f32,
    /// Draw so many times the prompts of a step, and ask about those pairs on which the policy is least sure: of each prompt's
    /// responses the two whose implicit rewards are closest, of the prompts those where they are closest. 1: ask about every
    /// pair.
    pub active: usize,
    /// Pairs of so many prompts, the first of the run, are asked about both ways round where the judge may prefer a
    /// position and does not do so itself.
    pub probes: usize,
    /// End the run when more than this share of the verdicts is unusable, or (below 1) when the last 16 all were.
    pub max_invalid_ratio: f64,
    /// Steps that a judge which works elsewhere is asked about ahead: while a step is learnt from, it judges the next
    /// ones, whose answers are off-policy by as many steps. 0: on-policy, as in the paper.
    pub async_level: usize,
}

impl AlignOptions {
    /// As in the paper: two samples at temperature 0.9, hard labels; 64 new tokens.
    pub fn new(loss: impl Into<OnlineLoss>) -> AlignOptions {
        AlignOptions {
            loss: loss.into(),
            sampling: SamplingParams { temperature: 0.9, ..SamplingParams::default() },
            max_new_tokens: 64,
            num_samples: 2,
            slots: None,
            stop: Vec::new(),
            soft_labels: false,
            pairs: PairChoice::BestWorst,
            min_confidence: 0.5,
            active: 1,
            probes: 64,
            max_invalid_ratio: 0.5,
            async_level: 0,
        }
    }
}
