//! The commands that train: `align`, `sft`, `dpo`. Names and defaults are TRL's where it has one.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::annotator::{AnnotatorArgs, PROTOCOL};
use super::gpu::{BaseDtypeArgs, GpuArgs, GpuPlan};
use super::paths::{AdapterArgs, dataset_file, input_file, model_dir, refuse_own_input, run_dir};
use super::sampling::SamplingArgs;
use super::{ensure, first_given, positive, shortest, unusable};
use crate::annotate::config::AnnotatorConfig;
use crate::annotate::names;
use crate::cli::fetch::{Fetch, Input, What};
use crate::data::rows::Columns;
use crate::error::{Error, Result};
use crate::gpu::Limits;
use crate::model::lora::{LoraConfig, LoraTargets};
use crate::optim::OptimiserKind;
use crate::preference::{LossOptions, Objective};
use crate::train::options::{AlignOptions, DpoOptions, ReferenceSync, RewardOptions, TrainOptions};
use crate::train::run_dir::Resume;
use crate::train::{Advantage, OnlineLoss, PairChoice, PolicyLoss, TokenWeights};
#[cfg(feature = "ui")]
use crate::ui::UiOptions;

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Optim {
    #[value(aliases = ["adamw_torch", "adamw_torch_fused"])]
    Adamw,
    Adafactor,
}

/// What the training commands share.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Run")]
#[serde(rename_all = "kebab-case")]
struct TrainArgs {
    /// Folder of the model to start from, a GGUF file, or ORG/NAME[@REVISION] on the hub (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE are
    /// heeded)
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: PathBuf,
    /// Rows to train on: .parquet, .jsonl, .json, .csv or .tsv, the latter four also with .gz; or
    /// ORG/NAME[@REVISION][:SPLIT, :SUBSET, :SUBSET/SPLIT or :FILES] on the hub, such as :data/train-*
    #[arg(long, value_name = "FILE|NAME", aliases = ["dataset-name", "train-file", "data"], required_unless_present = "dry_run")]
    dataset: Option<PathBuf>,
    /// Folder that the run is written to
    #[arg(long, value_name = "RUN", required_unless_present = "dry_run")]
    output_dir: Option<PathBuf>,
    /// Replace the run that is there already
    #[arg(long, alias = "overwrite")]
    #[serde(skip)]
    overwrite_output_dir: bool,
    /// Go on from a checkpoint's folder, or from the run's last
    #[arg(long, value_name = "PATH|last", num_args = 0..=1, default_missing_value = "last")]
    #[serde(skip)]
    resume_from_checkpoint: Option<String>,
    /// Go on with the run in this folder as its run.json says; flags given besides must agree (see --allow-changes)
    #[arg(long, value_name = "RUN", conflicts_with = "overwrite_output_dir")]
    #[serde(skip)]
    resume: Option<PathBuf>,
    /// What may differ from the run that is resumed, by the names of flags, such as learning-rate,judge; run.json keeps
    /// a note of it
    #[arg(long, value_name = "NAMES", value_delimiter = ',', num_args = 1..)]
    #[serde(skip)]
    allow_changes: Vec<String>,
    /// Steps between checkpoints; 0: only one at the end
    #[arg(long, value_name = "STEPS", default_value_t = 500)]
    save_steps: usize,
    /// Checkpoints kept [default: all]
    #[arg(long, value_name = "N")]
    save_total_limit: Option<usize>,
    /// Seed of the order of rows, of a new LoRA adapter and of the samples
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u32,
    /// Show the resolved configuration, the data's tokens and the memory needed, and stop. A folder with the model's
    /// config.json is enough: without --dataset all rows are as long as the lengths given
    #[arg(long)]
    #[serde(skip)]
    dry_run: bool,
    /// Dry run: largest storage binding of the GPU in mind, such as 128MiB or 2GiB, rather than of this machine's
    #[arg(long, value_name = "SIZE", requires = "dry_run")]
    #[serde(skip)]
    max_storage_buffer_binding_size: Option<String>,
    /// Dry run: its largest buffer
    #[arg(long, value_name = "SIZE", requires = "dry_run")]
    #[serde(skip)]
    max_buffer_size: Option<String>,
    /// Time every kernel: a table at the end, and a trace for Perfetto [default: RUN/trace.json]
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    #[serde(skip)]
    profile: Option<Option<PathBuf>>,
    /// Write report.html into the run's folder at its end, an interruption included
    #[arg(long)]
    report: bool,
    /// Show the run on a page of this machine, with buttons to pause, save and stop it; its address is printed
    #[cfg(feature = "ui")]
    #[arg(long)]
    #[serde(skip)]
    ui: bool,
    /// Port of the page [default: a free one]
    #[cfg(feature = "ui")]
    #[arg(long, value_name = "PORT", requires = "ui")]
    #[serde(skip)]
    ui_port: Option<u16>,
    /// Address of an interface on which others can reach the page; what is sent is not encrypted [default: this machine alone]
    #[cfg(feature = "ui")]
    #[arg(long, value_name = "IP", requires = "ui")]
    #[serde(skip)]
    ui_address: Option<std::net::IpAddr>,
    /// Where metrics go besides metrics.jsonl: tensorboard (an event file in the run's folder) or none
    #[arg(long, value_name = "WHERE", default_value = "none")]
    report_to: String,

    /// Rows (prompts, pairs) of a micro-batch [default: 16 in align, 8 in sft and dpo]
    #[arg(long, value_name = "N", help_heading = "Data", alias = "batch-size")]
    per_device_train_batch_size: Option<usize>,
    /// Micro-batches of a step
    #[arg(long, value_name = "N", help_heading = "Data", default_value_t = 1)]
    gradient_accumulation_steps: usize,
    /// Steps; -1: what --num-train-epochs makes
    #[arg(long, value_name = "N", help_heading = "Data", aliases = ["steps", "iters"], default_value_t = -1)]
    max_steps: i64,
    /// Passes over the rows
    #[arg(long, value_name = "N", help_heading = "Data", aliases = ["epochs", "num-epochs"], default_value_t = 1.0)]
    num_train_epochs: f64,
    /// Take the rows in the file's order
    #[arg(long, help_heading = "Data")]
    no_shuffle: bool,
    /// Skip rows with a longer prompt; nothing is cut [default: what the model takes]
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    max_prompt_length: Option<usize>,
    /// Skip rows that are longer, prompt and completion together (in align, prompt and longest response); nothing is cut
    /// [default: what the model takes]
    #[arg(long, value_name = "TOKENS", help_heading = "Data", alias = "max-seq-length")]
    max_length: Option<usize>,

    #[command(flatten)]
    #[serde(flatten)]
    optimisation: OptimisationArgs,
    #[command(flatten)]
    #[serde(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    #[serde(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    #[serde(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    #[serde(flatten)]
    gpu: GpuArgs,
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Optimisation")]
#[serde(rename_all = "kebab-case")]
struct OptimisationArgs {
    /// Highest learning rate [default: 1e-5, with LoRA 1e-4; in sft 2e-5, with LoRA 2e-4]
    #[arg(long, value_name = "RATE", alias = "lr")]
    learning_rate: Option<f64>,
    /// linear, cosine, constant or constant_with_warmup
    #[arg(long, value_name = "NAME", alias = "lr-scheduler", default_value = "linear")]
    lr_scheduler_type: String,
    /// Steps in which the learning rate climbs from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup_steps: usize,
    /// Share of all steps in which it climbs from 0, where --warmup-steps gives none
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    warmup_ratio: f64,
    /// Optimiser
    #[arg(long, value_name = "NAME", default_value = "adamw")]
    optim: Optim,
    /// Decay of AdamW's first moment
    #[arg(long, value_name = "B", default_value_t = 0.9)]
    adam_beta1: f64,
    /// Decay of AdamW's second moment
    #[arg(long, value_name = "B", default_value_t = 0.999)]
    adam_beta2: f64,
    /// Keeps AdamW's denominator away from 0
    #[arg(long, value_name = "E", default_value = "1e-8")]
    adam_epsilon: f64,
    /// Decay of the weights; norms are left out
    #[arg(long, value_name = "D", default_value_t = 0.0)]
    weight_decay: f64,
    /// Clip the gradient's norm to this; 0: do not
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    max_grad_norm: f64,
    /// Compute activations again in the backward pass rather than keep them: less memory, more time
    #[arg(long)]
    gradient_checkpointing: bool,
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "LoRA")]
#[serde(rename_all = "kebab-case")]
struct LoraArgs {
    /// Rank of the LoRA adapter to train; 0: train all weights [default: 0]
    #[arg(long, value_name = "R", alias = "lora-rank")]
    lora_r: Option<usize>,
    /// TRL's switch for --lora-r 16
    #[arg(long, hide = true)]
    #[serde(skip)]
    use_peft: bool,
    /// What the LoRA adapter adds is scaled by alpha / r [default: 2 r]
    #[arg(long, value_name = "ALPHA")]
    lora_alpha: Option<f64>,
    /// Modules that get one, by the names of the model's family, such as q_proj,v_proj [default: all-linear]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', num_args = 1..)]
    lora_target_modules: Vec<String>,
    /// What it adds is scaled by alpha / √r instead
    #[arg(long)]
    use_rslora: bool,
}

/// The preference loss of `align` and `dpo`.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Loss")]
#[serde(rename_all = "kebab-case")]
struct LossArgs {
    /// Loss, or several that are added up, such as dpo,sft: dpo (also called sigmoid), ipo, slic (hinge), robust, exo_pair,
    /// nca_pair, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sigmoid_norm, kto, rdpo; without
    /// reference simpo, cpo, orpo; and sft, the negative log-likelihood of the chosen response. In align also xpo, where the
    /// second answer of each prompt is the reference's, and rloo and grpo, policy gradients on the annotator's scores, or on how
    /// often a response wins
    #[arg(long, value_name = "NAMES", alias = "loss-type", value_delimiter = ',', num_args = 1.., default_value = "dpo")]
    #[serde(serialize_with = "joined")]
    loss: Vec<String>,
    /// What each of several losses is multiplied by [default: 1 each]
    #[arg(long, value_name = "WEIGHTS", value_delimiter = ',', num_args = 1..)]
    loss_weights: Vec<f64>,
    /// Strength of the pull towards the starting model; one for all losses [default: that of the first: 0.1, ipo 1, slic
    /// 0.002]
    #[arg(long, value_name = "B")]
    beta: Option<f64>,
    /// ipo: average log-probabilities over tokens rather than sum them
    #[arg(long)]
    ipo_average_tokens: bool,
    /// Chance that a label is wrong, at least 0 and below 0.5: robust corrects for it, others soften their labels by it
    /// [default: 0, exo_pair 0.001]
    #[arg(long, value_name = "SHARE")]
    label_smoothing: Option<f64>,
    /// Multiply each pair's loss by how likely the policy is to write its responses (WPO)
    #[arg(long)]
    use_weighting: bool,
    /// What tokens beyond the length of a pair's shorter response count, 0 to 1 (LD-DPO) [default: 1]
    #[arg(long, value_name = "A")]
    ld_alpha: Option<f64>,
    /// Add this times the negative log-likelihood of the chosen response (RPO) [default: 0]
    #[arg(long, value_name = "A")]
    rpo_alpha: Option<f64>,
    /// discopop: temperature of the mixture of its two losses [default: 0.05]
    #[arg(long, value_name = "T")]
    discopop_tau: Option<f64>,
    /// simpo: the margin that is aimed at [default: 0.5]
    #[arg(long, value_name = "G")]
    simpo_gamma: Option<f64>,
    /// cpo: weight of the negative log-likelihood of the chosen response [default: 1]
    #[arg(long, value_name = "A")]
    cpo_alpha: Option<f64>,
    /// kto: weight of chosen responses [default: 1]
    #[arg(long, value_name = "W")]
    desirable_weight: Option<f64>,
    /// kto: weight of rejected responses [default: 1]
    #[arg(long, value_name = "W")]
    undesirable_weight: Option<f64>,
    /// rdpo: what each token counts that a response is longer [default: 0.01]
    #[arg(long, value_name = "A")]
    rdpo_alpha: Option<f64>,
    /// xpo (align): what the log-probability of the reference's answer counts [default: 0.00001]
    #[arg(long, value_name = "A")]
    xpo_alpha: Option<f64>,
}

/// What `align` asks of a policy gradient, `--loss rloo` or `grpo`.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Loss")]
#[serde(rename_all = "kebab-case")]
struct PolicyLossArgs {
    /// rloo, grpo: how far the ratio of the policy to the one that drew a token may fall below 1 [default: 0.2]
    #[arg(long, value_name = "E")]
    epsilon: Option<f64>,
    /// rloo, grpo: how far it may rise above 1 [default: epsilon]
    #[arg(long, value_name = "E")]
    epsilon_high: Option<f64>,
    /// grpo: divide advantages by the scores' standard deviation over a prompt's responses, or not [default: group]
    #[arg(long, value_name = "group|none")]
    scale_rewards: Option<String>,
    /// rloo, grpo: the loss is the mean over all tokens, over responses of their tokens' means, or over responses of their
    /// tokens' sums [default: sum, grpo token]
    #[arg(long, value_name = "token|response|sum")]
    token_weights: Option<String>,
}

impl PolicyLossArgs {
    /// The policy gradient that the loss names, if it names one.
    fn named(loss: &LossArgs) -> Result<Option<PolicyLoss>> {
        let usual = |name: &String| match name.as_str() {
            "rloo" => Some(PolicyLoss::rloo()),
            "grpo" => Some(PolicyLoss::grpo()),
            _ => None,
        };
        match (loss.loss.iter().find_map(usual), loss.loss.len()) {
            (Some(usual), 2..) => {
                let why = format!("{} stands alone: it is added to no other loss", usual.name());
                Err(Error::config("--loss", why))
            }
            (found, _) => Ok(found),
        }
    }

    fn plan(&mut self, usual: PolicyLoss, loss: &mut LossArgs) -> Result<PolicyLoss> {
        let name = usual.name();
        if let Some(flag) = first_given(loss, &["loss", "beta"]) {
            let why = format!("is for losses on pairs, and this is {name}: leave it out");
            return Err(Error::config(flag, why));
        }
        let advantage = match (self.scale_rewards.as_deref(), usual.advantage) {
            (Some(_), Advantage::LeaveOneOut) => {
                let why = "is for the loss grpo: rloo does not scale its scores";
                return Err(Error::config("--scale-rewards", why));
            }
            (None | Some("group"), usual) => usual,
            (Some("none"), _) => Advantage::Centred,
            (Some(other), _) => {
                return Err(names::unknown("--scale-rewards", other, &["group", "none"]));
            }
        };
        let tokens = match self.token_weights.as_deref() {
            None => usual.tokens,
            Some("token") => TokenWeights::Token,
            Some("response") => TokenWeights::Response,
            Some("sum") => TokenWeights::Sum,
            Some(other) => {
                return Err(names::unknown("--token-weights", other, &["token", "response", "sum"]));
            }
        };
        let epsilon = self.epsilon.map_or(usual.epsilon, |e| e as f32);
        let planned = PolicyLoss {
            advantage,
            tokens,
            beta: loss.beta.map_or(usual.beta, |beta| beta as f32),
            epsilon,
            epsilon_high: self.epsilon_high.map_or(epsilon, |e| e as f32),
        };
        planned.check()?;
        loss.beta.get_or_insert(shortest(planned.beta));
        self.epsilon.get_or_insert(shortest(planned.epsilon));
        self.epsilon_high.get_or_insert(shortest(planned.epsilon_high));
        if planned.advantage != Advantage::LeaveOneOut {
            self.scale_rewards.get_or_insert("group".into());
        }
        let tokens = match planned.tokens {
            TokenWeights::Token => "token",
            TokenWeights::Response => "response",
            TokenWeights::Sum => "sum",
        };
        self.token_weights.get_or_insert(tokens.into());
        Ok(planned)
    }

    /// Refuses what a loss on pairs has no use for.
    fn refuse(&self) -> Result<()> {
        match first_given(self, &[]) {
            None => Ok(()),
            Some(flag) => Err(Error::config(flag, "is for --loss rloo and grpo: leave it out")),
        }
    }
}

/// The reference model of `align` and `dpo`.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Loss")]
#[serde(rename_all = "kebab-case")]
struct ReferenceArgs {
    /// Let the reference model follow the policy (TR-DPO); where all weights are trained
    #[arg(long)]
    sync_ref_model: bool,
    /// How far it moves towards the policy each time: above 0, and with 1 it becomes the policy [default: 0.6]
    #[arg(long, value_name = "A", requires = "sync_ref_model")]
    ref_model_mixup_alpha: Option<f64>,
    /// Steps between two moves [default: 512]
    #[arg(long, value_name = "N", requires = "sync_ref_model")]
    ref_model_sync_steps: Option<usize>,
}

impl ReferenceArgs {
    fn plan(&mut self) -> Result<Option<ReferenceSync>> {
        if !self.sync_ref_model {
            return Ok(None);
        }
        // TRL's.
        let alpha = *self.ref_model_mixup_alpha.get_or_insert(0.6);
        let steps = *self.ref_model_sync_steps.get_or_insert(512);
        let usable = alpha as f32 > 0.0 && alpha <= 1.0;
        ensure(usable, "--ref-model-mixup-alpha", alpha, "a number above 0 and at most 1")?;
        let steps = positive("--ref-model-sync-steps", steps)?;
        Ok(Some(ReferenceSync { alpha: alpha as f32, steps }))
    }
}

/// Names as the flag has them.
fn joined<S: serde::Serializer>(names: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&names.join(","))
}

/// What `align` and `dpo` call the columns of a preference set; `align` uses only its prompts.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Data")]
#[serde(rename_all = "kebab-case")]
struct PairColumns {
    /// What the dataset calls its prompt
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    prompt_column: String,
    /// What it calls the better answer
    #[arg(long, value_name = "NAME", default_value = "chosen")]
    chosen_column: String,
    /// What it calls the worse answer
    #[arg(long, value_name = "NAME", default_value = "rejected")]
    rejected_column: String,
}

/// `oaif align`.
#[derive(Debug, Args, Serialize)]
#[command(after_help = PROTOCOL)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct AlignArgs {
    #[command(flatten)]
    #[serde(flatten)]
    train: TrainArgs,
    #[command(flatten)]
    #[serde(flatten)]
    columns: PairColumns,
    #[command(flatten)]
    #[serde(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    #[serde(flatten)]
    reference: ReferenceArgs,
    #[command(flatten)]
    #[serde(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    #[serde(flatten)]
    policy_loss: PolicyLossArgs,
    /// Responses to each prompt; of more than 2 the best is set against the worst, rloo and grpo learn from all [default: 2,
    /// grpo 8]
    #[arg(long, value_name = "K", alias = "num-generations", help_heading = "Sampling")]
    num_samples: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    annotator: AnnotatorArgs,
    /// Weigh the loss by the annotator's probability rather than take its verdict as certain
    #[arg(long, help_heading = "Annotator")]
    soft_labels: bool,
    /// Learn from a prompt's best response against its worst, or from all pairs with a preference
    #[arg(long, value_name = "best-worst|all", help_heading = "Annotator", default_value = "best-worst")]
    pairs: String,
    /// Learn from a pair only where the annotator is at least so sure, 0.5 to 1
    #[arg(long, value_name = "P", help_heading = "Annotator", default_value_t = 0.5)]
    min_confidence: f64,
    /// Draw N times the prompts of a step, and ask about the pairs on which the policy is least sure: of each prompt's answers
    /// the two whose implicit rewards are closest
    #[arg(long, value_name = "N", help_heading = "Annotator", default_value_t = 1)]
    active: usize,
    /// Ask about the pairs of the first N prompts both ways round, where the judge does not do so itself (command, or
    /// --judge-orders one), to see whether it prefers a position
    #[arg(long, value_name = "N", help_heading = "Annotator", default_value_t = 64)]
    judge_probes: usize,
    /// End the run when more than this share of the verdicts is unusable
    /// [default: 0.5; human 1, as a person may skip]
    #[arg(long, value_name = "SHARE", help_heading = "Annotator")]
    max_invalid_ratio: Option<f64>,
    /// Steps that a judge elsewhere (command, openai, human, an ensemble with one of them) is asked about ahead, while the model
    /// learns: their answers are off-policy by as many steps [default: 0, human 1]
    #[arg(long, value_name = "N", help_heading = "Annotator")]
    async_level: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    evaluation: EvaluationArgs,
}

/// What a run is evaluated on.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Evaluation")]
#[serde(rename_all = "kebab-case")]
struct EvaluationArgs {
    /// Rows that are not trained on, for an evaluation at the end and after every --eval-steps. In align they are prompts: the
    /// annotator compares the policy's answers with those of the start, answered once at the beginning. In dpo and reward they
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

impl EvaluationArgs {
    fn plan(&mut self, default_most: usize) -> Result<Option<HeldOut>> {
        let Some(file) = self.eval_dataset.as_deref() else { return Ok(None) };
        let most = *self.max_eval_samples.get_or_insert(default_most);
        Ok(Some(HeldOut {
            file: input_file("--eval-dataset", file)?,
            most: positive("--max-eval-samples", most)?,
            every: self.eval_steps.map(|n| positive("--eval-steps", n)).transpose()?,
        }))
    }
}

/// `oaif dpo`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct DpoArgs {
    #[command(flatten)]
    #[serde(flatten)]
    train: TrainArgs,
    #[command(flatten)]
    #[serde(flatten)]
    columns: PairColumns,
    /// Do not end completions with the end-of-sequence token
    #[arg(long, help_heading = "Data")]
    no_append_eos: bool,
    #[command(flatten)]
    #[serde(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    #[serde(flatten)]
    reference: ReferenceArgs,
    #[command(flatten)]
    #[serde(flatten)]
    evaluation: EvaluationArgs,
}

/// `oaif reward`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct RewardArgs {
    #[command(flatten)]
    #[serde(flatten)]
    train: TrainArgs,
    #[command(flatten)]
    #[serde(flatten)]
    columns: PairColumns,
    /// Do not end completions with the end-of-sequence token
    #[arg(long, help_heading = "Data")]
    no_append_eos: bool,
    /// The weight of (chosen + rejected)^2 in the loss, which keeps scores around 0; usual is 0.01
    #[arg(long, value_name = "C", help_heading = "Loss", default_value_t = 0.0)]
    center_rewards_coefficient: f64,
    #[command(flatten)]
    #[serde(flatten)]
    evaluation: EvaluationArgs,
}

/// `oaif sft`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SftArgs {
    #[command(flatten)]
    #[serde(flatten)]
    train: TrainArgs,
    /// What the dataset calls its prompt
    #[arg(long, value_name = "NAME", help_heading = "Data", default_value = "prompt")]
    prompt_column: String,
    /// What it calls the completion of a prompt
    #[arg(long, value_name = "NAME", help_heading = "Data", default_value = "completion")]
    completion_column: String,
    /// What it calls a text without a prompt
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Data",
        alias = "dataset-text-field",
        default_value = "text"
    )]
    text_column: String,
    /// What it calls a conversation that is learnt whole
    #[arg(long, value_name = "NAME", help_heading = "Data", default_value = "messages")]
    messages_column: String,
    /// Do not end completions with the end-of-sequence token
    #[arg(long, help_heading = "Data")]
    no_append_eos: bool,
}

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
    /// Every flag with its resolved value, for `run.json`. Itself a `--config` file that repeats the run.
    pub config: Value,
}

/// `oaif align`, checked.
#[derive(Debug)]
pub(crate) struct AlignPlan {
    pub train: TrainPlan,
    pub align: AlignOptions,
    pub annotator: AnnotatorConfig,
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

/// Rows that a run is evaluated on.
#[derive(Debug)]
pub(crate) struct HeldOut {
    pub file: PathBuf,
    /// How many of them.
    pub most: usize,
    /// Steps between two evaluations; `None`: one at the end.
    pub every: Option<usize>,
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
        let judge = self.annotator.models_mut().into_iter();
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

/// What differs between the commands where nothing is given.
struct Defaults {
    learning_rate: f64,
    learning_rate_lora: f64,
    batch_size: usize,
}

const PREFERENCE: Defaults = Defaults { learning_rate: 1e-5, learning_rate_lora: 1e-4, batch_size: 8 };
const ONLINE: Defaults = Defaults { batch_size: 16, ..PREFERENCE };
const SFT: Defaults = Defaults { learning_rate: 2e-5, learning_rate_lora: 2e-4, batch_size: 8 };

impl AlignArgs {
    pub fn plan(mut self) -> Result<AlignPlan> {
        let mut train = self.train.plan(&ONLINE)?;
        train.columns = self.columns.columns();
        train.options.reference_sync = self.reference.plan()?;
        let loss = match PolicyLossArgs::named(&self.loss)? {
            Some(usual) => self.policy_loss.plan(usual, &mut self.loss)?.into(),
            None => {
                self.policy_loss.refuse()?;
                OnlineLoss::from(self.loss.plan()?)
            }
        };
        match (&loss, self.soft_labels) {
            (OnlineLoss::Preference(objective), true) => objective.check_soft_labels()?,
            (OnlineLoss::Policy(loss), true) => {
                let why = format!("is for losses on pairs: {} has no labels", loss.name());
                return Err(Error::config("--soft-labels", why));
            }
            (_, false) => {}
        }
        // On scores as on preferences, as its authors and TRL have it.
        let temperature = if loss.preference().is_some() { 0.9 } else { 1.0 };
        let sampling = self.sampling.plan(temperature, 64)?;
        if sampling.params.temperature == 0.0 {
            let why = "0 makes all responses to a prompt equal, so that nothing is left to compare: raise it";
            return Err(Error::config("--temperature", why));
        }
        let usual = match &loss {
            OnlineLoss::Policy(loss) if loss.advantage != Advantage::LeaveOneOut => 8,
            _ => 2,
        };
        let annotator = self.annotator.plan()?;
        let person = annotator.desk().is_some();
        let k = *self.num_samples.get_or_insert(usual);
        let share = *self.max_invalid_ratio.get_or_insert(if person { 1.0 } else { 0.5 });
        ensure(k >= 2, "--num-samples", k, "2 or more: responses are compared with each other")?;
        ensure((0.0..=1.0).contains(&share), "--max-invalid-ratio", share, "between 0 and 1")?;
        let pairs = match self.pairs.as_str() {
            "best-worst" => PairChoice::BestWorst,
            "all" => PairChoice::All,
            other => return Err(names::unknown("--pairs", other, &["best-worst", "all"])),
        };
        let sure = self.min_confidence;
        ensure((0.5..=1.0).contains(&sure), "--min-confidence", sure, "a probability from 0.5 to 1")?;
        let level = *self.async_level.get_or_insert(if person { 1 } else { 0 });
        ensure(level <= 64, "--async-level", level, "at most 64: answers are off-policy by as many steps")?;
        if train.options.overwrite {
            refuse_own_input(&train.options.output_dir, &self.annotator.inputs())?;
        }
        if level > 0 && !annotator.is_remote() {
            let why = format!(
                "is {level}, which is for --judge command, openai and human: other annotators leave nothing to wait for"
            );
            return Err(Error::config("--async-level", why));
        }
        let held_out = self.evaluation.plan(64)?;
        train.config = resolved(&self)?;
        let align = AlignOptions {
            loss,
            sampling: sampling.params,
            max_new_tokens: sampling.max_new_tokens,
            num_samples: k,
            slots: sampling.slots,
            stop: sampling.stop,
            soft_labels: self.soft_labels,
            pairs,
            min_confidence: self.min_confidence as f32,
            active: self.active,
            probes: self.judge_probes,
            max_invalid_ratio: share,
            async_level: level,
        };
        Ok(AlignPlan { train, align, annotator, held_out })
    }
}

impl DpoArgs {
    pub fn plan(mut self) -> Result<DpoPlan> {
        let mut train = self.train.plan(&PREFERENCE)?;
        train.columns = self.columns.columns();
        train.options.reference_sync = self.reference.plan()?;
        let loss = self.loss.plan()?;
        if loss.needs_reference_samples() {
            let why = "xpo needs pairs of which the reference drew one response: oaif align draws such pairs";
            return Err(Error::config("--loss", why));
        }
        let dpo = DpoOptions { loss, append_eos: !self.no_append_eos };
        let held_out = self.evaluation.plan(512)?;
        train.config = resolved(&self)?;
        Ok(DpoPlan { train, dpo, held_out })
    }
}

impl RewardArgs {
    pub fn plan(mut self) -> Result<RewardPlan> {
        let mut train = self.train.plan(&PREFERENCE)?;
        train.columns = self.columns.columns();
        let centre = self.center_rewards_coefficient;
        let usable = centre >= 0.0 && (centre as f32).is_finite();
        ensure(usable, "--center-rewards-coefficient", centre, "a number from 0 on")?;
        let held_out = self.evaluation.plan(512)?;
        train.config = resolved(&self)?;
        let reward =
            RewardOptions { center_rewards_coefficient: centre as f32, append_eos: !self.no_append_eos };
        Ok(RewardPlan { train, reward, held_out })
    }
}

impl SftArgs {
    pub fn plan(mut self) -> Result<SftPlan> {
        let mut train = self.train.plan(&SFT)?;
        train.columns = Columns {
            prompt: self.prompt_column.clone(),
            completion: self.completion_column.clone(),
            text: self.text_column.clone(),
            messages: self.messages_column.clone(),
            ..Columns::default()
        };
        train.config = resolved(&self)?;
        Ok(SftPlan { train, append_eos: !self.no_append_eos })
    }
}

/// The flags with their values once `plan` has filled in what was not given.
fn resolved(args: &impl Serialize) -> Result<Value> {
    serde_json::to_value(args).map_err(|e| Error::config("arguments", format!("cannot be written down: {e}")))
}

impl TrainArgs {
    /// Fills in what was not given; `columns` and `config` are the caller's.
    fn plan(&mut self, defaults: &Defaults) -> Result<TrainPlan> {
        let (adapter, gpu) = (self.adapter.plan()?, self.gpu.plan(self.profile.is_some()));
        let lora = self.lora.plan(adapter.is_some())?;
        let few = lora.is_some() || adapter.is_some();
        let rate = if few { defaults.learning_rate_lora } else { defaults.learning_rate };
        let rate = *self.optimisation.learning_rate.get_or_insert(rate);
        let batch_size = *self.per_device_train_batch_size.get_or_insert(defaults.batch_size);
        ensure(rate > 0.0 && rate.is_finite(), "--learning-rate", rate, "a positive number")?;
        let max_steps = match self.max_steps {
            -1 => None,
            n if n > 0 => Some(n as usize),
            n => return unusable("--max-steps", n, "1 or more, or -1 for what --num-train-epochs makes"),
        };
        let epochs = self.num_train_epochs;
        ensure(epochs > 0.0 && epochs.is_finite(), "--num-train-epochs", epochs, "a positive number")?;
        let warmup = self.optimisation.warmup_ratio;
        ensure((0.0..=1.0).contains(&warmup), "--warmup-ratio", warmup, "between 0 and 1")?;
        let norm = self.optimisation.max_grad_norm;
        ensure(
            norm >= 0.0 && norm.is_finite(),
            "--max-grad-norm",
            norm,
            "0 (no clipping) or a positive number",
        )?;
        if self.overwrite_output_dir && self.resume_from_checkpoint.is_some() {
            let why = "would delete what --resume-from-checkpoint goes on from: give one of the two";
            return Err(Error::config("--overwrite-output-dir", why));
        }
        let output_dir = run_dir(self.output_dir.as_deref().unwrap_or(Path::new("")))?;
        if self.overwrite_output_dir {
            let inputs = [
                ("--model", Some(self.model.as_path())),
                ("--dataset", self.dataset.as_deref()),
                ("--adapter", adapter.as_deref()),
            ];
            refuse_own_input(&output_dir, &inputs)?;
        }
        let optional = |flag, value: Option<usize>| value.map(|n| positive(flag, n)).transpose();
        let tensorboard = match self.report_to.as_str() {
            "none" => false,
            "tensorboard" => true,
            other => {
                let why = format!(
                    "{other:?} is not known: give tensorboard or none (metrics.jsonl in the run's folder has everything)"
                );
                return Err(Error::config("--report-to", why));
            }
        };
        let options = TrainOptions {
            output_dir: output_dir.clone(),
            overwrite: self.overwrite_output_dir,
            resume: self.resume_from_checkpoint.as_deref().map(Resume::from),
            allow_changes: self
                .allow_changes
                .iter()
                .map(|name| name.trim_start_matches("--").replace('_', "-"))
                .collect(),
            learning_rate: rate,
            schedule: self.optimisation.lr_scheduler_type.parse()?,
            warmup_steps: self.optimisation.warmup_steps,
            warmup_ratio: warmup,
            batch_size: positive("--per-device-train-batch-size", batch_size)?,
            accumulation: positive("--gradient-accumulation-steps", self.gradient_accumulation_steps)?,
            max_steps,
            epochs,
            lora,
            adapter,
            reference_sync: None,
            base_dtype: self.base_dtype.plan()?,
            optimiser: self.optimisation.optimiser()?,
            max_grad_norm: norm as f32,
            seed: self.seed,
            tensorboard,
            save_steps: (self.save_steps > 0).then_some(self.save_steps),
            save_total_limit: optional("--save-total-limit", self.save_total_limit)?,
            gradient_checkpointing: self.optimisation.gradient_checkpointing,
            shuffle: !self.no_shuffle,
            max_prompt_length: optional("--max-prompt-length", self.max_prompt_length)?,
            max_length: optional("--max-length", self.max_length)?,
        };
        let trace = self.profile.clone().map(|file| file.unwrap_or_else(|| output_dir.join("trace.json")));
        Ok(TrainPlan {
            model: model_dir("--model", &self.model)?,
            dataset: self.dataset.as_deref().map(dataset_file).transpose()?.into_iter().collect(),
            columns: Columns::default(),
            options,
            gpu,
            dry_run: self.dry_run,
            limits: self.limits()?,
            trace,
            report: self.report,
            #[cfg(feature = "ui")]
            ui: self.ui.then_some(UiOptions { port: self.ui_port, address: self.ui_address }),
            config: Value::Null,
        })
    }
}

impl TrainArgs {
    /// The limits given, with WebGPU's own for the rest.
    fn limits(&self) -> Result<Option<Limits>> {
        let bytes = |flag, text: &Option<String>| text.as_ref().map(|t| size(flag, t)).transpose();
        let binding = bytes("--max-storage-buffer-binding-size", &self.max_storage_buffer_binding_size)?;
        let buffer = bytes("--max-buffer-size", &self.max_buffer_size)?;
        let usual = Limits::default();
        Ok(match (binding, buffer) {
            (None, None) => None,
            (binding, buffer) => {
                let buffer = buffer.unwrap_or(usual.buffer.max(binding.unwrap_or(0)));
                Some(Limits { binding: binding.unwrap_or(usual.binding).min(buffer), buffer, ..usual })
            }
        })
    }
}

/// Bytes, from a number of them or of KiB, MiB or GiB.
fn size(flag: &str, text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim() {
        "" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let bytes = digits.parse().ok().zip(shift).and_then(|(n, shift): (u64, u32)| n.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => unusable(flag, text, "a size such as 128MiB or 2GiB"),
    }
}

impl OptimisationArgs {
    fn optimiser(&self) -> Result<OptimiserKind> {
        let (beta1, beta2, epsilon, decay) =
            (self.adam_beta1, self.adam_beta2, self.adam_epsilon, self.weight_decay);
        for (flag, beta) in [("--adam-beta1", beta1), ("--adam-beta2", beta2)] {
            ensure((0.0..1.0).contains(&beta), flag, beta, "at least 0 and below 1")?;
        }
        ensure(epsilon > 0.0 && epsilon.is_finite(), "--adam-epsilon", epsilon, "a positive number")?;
        ensure(decay >= 0.0 && decay.is_finite(), "--weight-decay", decay, "0 or a positive number")?;
        let weight_decay = decay as f32;
        Ok(match self.optim {
            Optim::Adamw => OptimiserKind::AdamW {
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                epsilon: epsilon as f32,
                weight_decay,
            },
            Optim::Adafactor => OptimiserKind::Adafactor { weight_decay },
        })
    }
}

/// The rank that TRL takes where none is given.
const USUAL_RANK: usize = 16;

impl LoraArgs {
    /// The adapter to begin with, unless one is `given` that brings its own settings.
    fn plan(&mut self, given: bool) -> Result<Option<LoraConfig>> {
        if self.use_peft {
            self.lora_r.get_or_insert(USUAL_RANK);
        }
        let flags = [
            ("--lora-r", self.lora_r.is_some_and(|r| r > 0)),
            ("--lora-alpha", self.lora_alpha.is_some()),
            ("--lora-target-modules", !self.lora_target_modules.is_empty()),
            ("--use-rslora", self.use_rslora),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, set)| *set) {
            if given {
                let why = "is said by the LoRA adapter that --adapter goes on with: leave one of the two out";
                return Err(Error::config(*flag, why));
            }
            if self.lora_r.is_none() {
                let why = "needs --lora-r R, without which all weights are trained and there is no adapter";
                return Err(Error::config(*flag, why));
            }
        }
        // An explicit 0 switches off the adapter that a configuration describes, so its other flags are no mistake.
        let rank = *self.lora_r.get_or_insert(0);
        if rank == 0 {
            return Ok(None);
        }
        let alpha = *self.lora_alpha.get_or_insert(2.0 * rank as f64);
        ensure(alpha > 0.0 && alpha.is_finite(), "--lora-alpha", alpha, "a positive number")?;
        if self.lora_target_modules.is_empty() {
            self.lora_target_modules.push("all-linear".into());
        }
        let targets = LoraTargets::parse(&self.lora_target_modules)?;
        Ok(Some(LoraConfig { rank, alpha: alpha as f32, rank_stabilised: self.use_rslora, targets }))
    }
}

impl LossArgs {
    fn plan(&mut self) -> Result<Objective> {
        let given = |flag: Option<f64>| flag.map(|value| value as f32);
        let weights: Vec<f32> = self.loss_weights.iter().map(|weight| *weight as f32).collect();
        let objective = Objective::parse(&LossOptions {
            loss: self.loss.join(","),
            loss_weights: (!weights.is_empty()).then_some(weights),
            beta: given(self.beta),
            ipo_average_tokens: self.ipo_average_tokens,
            label_smoothing: given(self.label_smoothing),
            use_weighting: self.use_weighting,
            ld_alpha: given(self.ld_alpha),
            rpo_alpha: given(self.rpo_alpha),
            discopop_tau: given(self.discopop_tau),
            simpo_gamma: given(self.simpo_gamma),
            cpo_alpha: given(self.cpo_alpha),
            desirable_weight: given(self.desirable_weight),
            undesirable_weight: given(self.undesirable_weight),
            rdpo_alpha: given(self.rdpo_alpha),
            xpo_alpha: given(self.xpo_alpha),
        })?;
        let resolved = objective.options();
        for (flag, value) in [
            (&mut self.beta, resolved.beta),
            (&mut self.label_smoothing, resolved.label_smoothing.filter(|share| *share > 0.0)),
            (&mut self.discopop_tau, resolved.discopop_tau),
            (&mut self.simpo_gamma, resolved.simpo_gamma),
            (&mut self.cpo_alpha, resolved.cpo_alpha),
            (&mut self.desirable_weight, resolved.desirable_weight),
            (&mut self.undesirable_weight, resolved.undesirable_weight),
            (&mut self.rdpo_alpha, resolved.rdpo_alpha),
            (&mut self.xpo_alpha, resolved.xpo_alpha),
        ] {
            *flag = flag.or(value.map(shortest));
        }
        Ok(objective)
    }
}

impl PairColumns {
    fn columns(&self) -> Columns {
        Columns {
            prompt: self.prompt_column.clone(),
            chosen: self.chosen_column.clone(),
            rejected: self.rejected_column.clone(),
            ..Columns::default()
        }
    }
}
