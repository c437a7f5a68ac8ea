//! Options of training runs.

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

/// Updates of the reference model towards the policy: after every `steps` steps, π₀ ← α π + (1 − α) π₀ (TR-DPO,
/// Gorbatovski et al. 2024, arXiv 2404.09656).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceSync {
    /// α, above 0 and at most 1. With 1, the reference becomes a copy of the policy.
    pub alpha: f32,
    /// Steps between two updates.
    pub steps: usize,
}

/// Options of every kind of training.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct TrainOptions {
    /// The folder of the run; `None` for a [`Trainer`](super::Trainer) that an application drives.
    #[setters(skip)]
    pub output_dir: Option<PathBuf>,
    /// Only for runs with a folder: replace an earlier run in `output_dir`.
    pub overwrite: bool,
    /// Only for runs with a folder: resume from this checkpoint.
    #[setters(into)]
    pub resume: Option<Resume>,
    /// The options that may differ from the run that wrote the checkpoint, by name, such as `learning-rate` or `judge`.
    /// All other options that affect the numbers must be the same.
    #[setters(into)]
    pub allow_changes: Vec<String>,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// The learning rate schedule.
    pub schedule: ScheduleKind,
    /// Steps in which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// The share of all steps in which the learning rate rises from 0, used if `warmup_steps` is 0.
    pub warmup_ratio: f64,
    /// Rows (prompts or pairs) per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per step.
    pub accumulation: usize,
    /// The number of steps; `None` to derive it from `epochs`.
    #[setters(into)]
    pub max_steps: Option<usize>,
    /// Passes over the dataset.
    pub epochs: f64,
    /// Train a LoRA adapter; `None` for full fine-tuning.
    #[setters(into)]
    pub lora: Option<LoraConfig>,
    /// An existing LoRA adapter to continue training, in the layout of PEFT.
    #[setters(into)]
    pub adapter: Option<PathBuf>,
    /// Update the reference model towards the policy, in `dpo` and `align` with full fine-tuning; `None` to keep the
    /// starting model as the reference.
    #[setters(into)]
    pub reference_sync: Option<ReferenceSync>,
    /// The format on the GPU of weights that are not trained: the base model under a LoRA adapter, and the copy of the
    /// reference model. `None` uses the format of the model's files; a moving reference is held in f32.
    #[setters(into)]
    pub base_dtype: Option<FrozenFormat>,
    /// The optimiser.
    pub optimiser: OptimiserKind,
    /// Clip the gradient to this norm; 0 disables clipping.
    pub max_grad_norm: f32,
    /// The seed of the row order, of the initialization of LoRA weights, and of sampling.
    pub seed: u32,
    /// Only for runs with a folder: steps between checkpoints; `None` saves only at the end.
    #[setters(into)]
    pub save_steps: Option<usize>,
    /// Only for runs with a folder: the number of checkpoints to keep.
    #[setters(into)]
    pub save_total_limit: Option<usize>,
    /// Only for runs with a folder: also write the metrics as a TensorBoard event file, into the subfolder
    /// `tensorboard`.
    pub tensorboard: bool,
    /// Recompute activations in the backward pass instead of storing them.
    pub gradient_checkpointing: bool,
    /// Draw the rows in an order derived from the seed instead of the order of the file.
    pub shuffle: bool,
    /// The longest prompt in tokens. Longer ones are skipped and counted. `None` uses the model's context.
    #[setters(into)]
    pub max_prompt_length: Option<usize>,
    /// The longest prompt and completion together, in tokens. Longer rows are skipped and counted. In online training,
    /// a prompt must leave room for the longest response.
    #[setters(into)]
    pub max_length: Option<usize>,
    /// The ranks that train together. A step takes `batch_size` times `accumulation` rows for each of them.
    #[setters(skip)]
    pub ranks: Ranks,
    /// Shard the optimiser state among the ranks. Each rank updates a part of the weights and sends it to the others.
    pub shard_optimiser: bool,
    /// The format in which gradients are exchanged between ranks.
    pub reduce_dtype: SumDtype,
    /// For a resumed run, the number of ranks when it started. Its steps take as many rows as before.
    #[setters(skip)]
    pub(crate) ranks_at_start: Option<usize>,
}

impl Default for TrainOptions {
    /// The defaults of `oaif align`: one pass over the rows, full fine-tuning with AdamW, a learning rate of 1e-5 that
    /// falls linearly to 0, 16 rows per step, and a checkpoint only at the end.
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

    /// The length limits of rows for a model with a context of `context` tokens.
    pub(super) fn length_limits(&self, context: usize) -> LengthLimits {
        let whole = self.max_length.unwrap_or(context).min(context);
        LengthLimits { prompt: self.max_prompt_length.unwrap_or(whole).min(whole), whole }
    }

    /// The number of warm-up steps of a run of `total` steps.
    pub(crate) fn warmup_of(&self, total: usize) -> usize {
        match self.warmup_by_ratio() {
            true => (self.warmup_ratio * total as f64).ceil() as usize,
            false => self.warmup_steps,
        }
    }

    /// Whether the warm-up is given as a share of all steps.
    pub(super) fn warmup_by_ratio(&self) -> bool {
        self.warmup_steps == 0 && self.warmup_ratio > 0.0
    }

    /// Creates the optimiser of the model's weights.
    pub(super) async fn optimiser_of(&self, model: &Model, arena: &Arena) -> Result<Optimiser> {
        let shards = (self.shard_optimiser && !self.ranks.is_alone()).then_some(&self.ranks);
        let (gpu, weights) = (model.gpu(), model.trained());
        Optimiser::with_shards(gpu, weights, self.optimiser, self.max_grad_norm, arena, shards).await
    }

    /// The number of rows that a step learns from.
    pub(crate) fn rows_of_step(&self) -> usize {
        self.batch_size.saturating_mul(self.accumulation).saturating_mul(self.ranks_of_step())
    }

    /// The number of ranks for which a step takes rows.
    pub(crate) fn ranks_of_step(&self) -> usize {
        self.ranks_at_start.unwrap_or(self.ranks.size())
    }

    /// The folder of the run, in which rows that do not fit into memory are stored; empty if there is none.
    pub(crate) fn folder(&self) -> &Path {
        self.output_dir.as_deref().unwrap_or(Path::new(""))
    }

    /// How to handle an existing run in the folder.
    pub fn start(&self) -> Start {
        match (&self.resume, self.overwrite) {
            (Some(resume), _) => Start::Resume(resume.clone()),
            (None, true) => Start::Overwrite,
            (None, false) => Start::New,
        }
    }
}

/// Options of training on given preference pairs, as in `oaif dpo`.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct DpoOptions {
    /// The loss.
    #[setters(into)]
    pub loss: Objective,
    /// Append the end-of-sequence token to every completion.
    pub append_eos: bool,
}

/// Options of the training of a reward model, as in `oaif reward`.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct RewardOptions {
    /// The weight of (chosen + rejected)², which centres the scores around 0; 0 disables it.
    pub center_rewards_coefficient: f32,
    /// Append the end-of-sequence token to every completion.
    pub append_eos: bool,
}

impl DpoOptions {
    /// The given loss, with an end-of-sequence token appended to every completion.
    pub fn new(loss: impl Into<Objective>) -> DpoOptions {
        DpoOptions { loss: loss.into(), append_eos: true }
    }
}

impl Default for RewardOptions {
    /// Scores are not centred, and an end-of-sequence token is appended to every completion.
    fn default() -> RewardOptions {
        RewardOptions { center_rewards_coefficient: 0.0, append_eos: true }
    }
}

/// Which pairs of the responses to a prompt are learnt from.
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

/// Options of online training, as in `oaif align`.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct AlignOptions {
    /// The loss.
    #[setters(into)]
    pub loss: OnlineLoss,
    /// The sampling parameters.
    pub sampling: SamplingParams,
    /// The longest response in tokens.
    pub max_new_tokens: usize,
    /// Responses per prompt, at least 2.
    pub num_samples: usize,
    /// Sequences decoded in parallel; `None` for all of a step's, at most 64.
    #[setters(into)]
    pub slots: Option<usize>,
    /// Strings that end a response.
    #[setters(into)]
    pub stop: Vec<String>,
    /// Weight the loss by the judge's probability instead of using hard labels.
    pub soft_labels: bool,
    /// Which pairs of the responses to a prompt are learnt from.
    pub pairs: PairChoice,
    /// Learn from a pair only if the judge's probability for the chosen response is at least this.
    pub min_confidence: f32,
    /// Active selection: sample responses to this many times the prompts of a step, and judge only the pairs on which
    /// the policy is least sure. For each prompt, these are the two responses whose implicit rewards are closest; of
    /// the prompts, those where they are closest. With 1, every pair is judged.
    pub active: usize,
    /// Judge the pairs of the first prompts of the run, this many, in both orders, to measure a position bias. Not used
    /// if the judge itself handles the order.
    pub probes: usize,
    /// Stop the run when more than this share of the verdicts is unusable, or, if it is below 1, when the last 16 were
    /// all unusable.
    pub max_invalid_ratio: f64,
    /// Steps to sample ahead for a judge that runs elsewhere. While the policy learns from one step, the judge compares
    /// the responses of the next ones, which are off-policy by as many steps. 0 is on-policy, as in the paper.
    pub async_level: usize,
}

impl AlignOptions {
    /// The settings of the paper: two responses at temperature 0.9, hard labels. At most 64 new tokens.
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
