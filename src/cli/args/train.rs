//! Flags of the training commands: `align`, `sft`, `dpo`, `reward`. Names and defaults are those of TRL where it has them.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::gpu::{BaseDtypeArgs, GpuArgs};
use super::held_out::EvaluationArgs;
use super::judge::{JudgeArgs, PROTOCOL};
use super::lora::LoraArgs;
use super::loss::{LossArgs, PolicyLossArgs, ReferenceArgs};
use super::optimisation::OptimisationArgs;
use super::paths::{AdapterArgs, dataset_file, given, model_dir, refuse_own_input, run_dir};
use super::sampling::SamplingArgs;
use super::train_plans::{AlignPlan, DpoPlan, RewardPlan, SftPlan, TrainPlan};
use super::{ensure, positive, unusable};
use crate::collective::Ranks;
use crate::data::rows::Columns;
use crate::error::{Error, Result};
use crate::gpu::Limits;
use crate::train::options::{AlignOptions, DpoOptions, RewardOptions, TrainOptions};
use crate::train::run_dir::Resume;
use crate::train::{Advantage, OnlineLoss, PairChoice};
#[cfg(feature = "ui")]
use crate::ui::UiOptions;

/// Destinations of metrics besides `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum ReportTo {
    /// An event file in the run folder
    Tensorboard,
    /// No other: metrics.jsonl in the run folder has all metrics
    None,
}

impl ValueEnum for PairChoice {
    fn value_variants<'a>() -> &'a [PairChoice] {
        &[PairChoice::BestWorst, PairChoice::All]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            PairChoice::BestWorst => {
                PossibleValue::new("best-worst").help("A prompt's best and worst response")
            }
            PairChoice::All => PossibleValue::new("all").help("All pairs with a preference"),
        })
    }
}

/// Flags of all training commands.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Run")]
#[serde(rename_all = "kebab-case")]
struct TrainArgs {
    /// Model to train: a folder, a GGUF file, or ORG/NAME[@REVISION] on the Hugging Face Hub (HF_HOME, HF_TOKEN and
    /// HF_HUB_OFFLINE apply)
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: PathBuf,
    /// Training rows: a .parquet, .jsonl, .json, .csv or .tsv file (all but .parquet also as .gz), or
    /// ORG/NAME[@REVISION][:SPLIT, :SUBSET, :SUBSET/SPLIT or :FILES] on the Hugging Face Hub, such as ORG/NAME:data/train-*
    #[arg(long, value_name = "FILE|NAME", aliases = ["dataset-name", "train-file", "data"], required_unless_present = "dry_run")]
    dataset: Option<PathBuf>,
    /// Run folder: where checkpoints, metrics and the result are written
    #[arg(long, value_name = "RUN", required_unless_present = "dry_run")]
    output_dir: Option<PathBuf>,
    /// Replace an existing run in --output-dir
    #[arg(long, alias = "overwrite")]
    #[serde(skip)]
    overwrite_output_dir: bool,
    /// Resume from a checkpoint: its folder, or last for the newest in --output-dir
    #[arg(long, value_name = "PATH|last", num_args = 0..=1, default_missing_value = "last")]
    #[serde(skip)]
    resume_from_checkpoint: Option<String>,
    /// Resume the run in this folder with the flags in its run.json; other flags must match them (see --allow-changes)
    #[arg(long, value_name = "RUN", conflicts_with = "overwrite_output_dir")]
    #[serde(skip)]
    resume: Option<PathBuf>,
    /// Flags that may differ from those of the resumed run, such as learning-rate,judge; the changes are recorded in run.json
    #[arg(long, value_name = "NAMES", value_delimiter = ',', num_args = 1..)]
    #[serde(skip)]
    allow_changes: Vec<String>,
    /// Steps between checkpoints; 0 saves only one, at the end
    #[arg(long, value_name = "STEPS", default_value_t = 500)]
    save_steps: usize,
    /// Maximum number of checkpoints to keep; the oldest are deleted [default: all]
    #[arg(long, value_name = "N")]
    save_total_limit: Option<usize>,
    /// Random seed of the row order, the initial LoRA weights and sampling
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u32,
    /// Print the resolved configuration, token counts and memory estimate, then exit. Needs only the model's config.json;
    /// without --dataset all rows are assumed to have the maximum lengths
    #[arg(long)]
    #[serde(skip)]
    dry_run: bool,
    /// Dry run: maximum storage buffer binding of the target GPU, such as 128MiB or 2GiB [default: this machine's]
    #[arg(long, value_name = "SIZE", requires = "dry_run")]
    #[serde(skip)]
    max_storage_buffer_binding_size: Option<String>,
    /// Dry run: maximum buffer size of the target GPU [default: this machine's]
    #[arg(long, value_name = "SIZE", requires = "dry_run")]
    #[serde(skip)]
    max_buffer_size: Option<String>,
    /// Profile every kernel: print a table at the end and write a Perfetto trace to FILE [default: RUN/trace.json]
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    #[serde(skip)]
    profile: Option<Option<PathBuf>>,
    /// Write report.html to the run folder at the end of the run, also when it is interrupted
    #[arg(long)]
    report: bool,
    /// Serve a page with the progress of the run and buttons to pause, save and stop it; prints its address
    #[cfg(feature = "ui")]
    #[arg(long)]
    ui: bool,
    /// Port of the page [default: a free port]
    #[cfg(feature = "ui")]
    #[arg(long, value_name = "PORT", requires = "ui")]
    #[serde(skip)]
    ui_port: Option<u16>,
    /// IP address on which the page is served; other machines can reach it, without encryption [default: loopback only]
    #[cfg(feature = "ui")]
    #[arg(long, value_name = "IP", requires = "ui")]
    #[serde(skip)]
    ui_address: Option<std::net::IpAddr>,
    /// Additional destination of metrics besides metrics.jsonl
    #[arg(long, value_name = "WHERE", default_value = "none")]
    report_to: ReportTo,

    /// Number of rows (prompts or pairs) per micro-batch [default: align: 16; sft, dpo, reward: 8]
    #[arg(long, value_name = "N", help_heading = "Data", alias = "batch-size")]
    per_device_train_batch_size: Option<usize>,
    /// Number of micro-batches per step
    #[arg(long, value_name = "N", help_heading = "Data", default_value_t = 1)]
    gradient_accumulation_steps: usize,
    /// Number of training steps; -1 uses --num-train-epochs
    #[arg(long, value_name = "N", help_heading = "Data", aliases = ["steps", "iters"], default_value_t = -1)]
    max_steps: i64,
    /// Number of passes over the dataset
    #[arg(long, value_name = "N", help_heading = "Data", aliases = ["epochs", "num-epochs"], default_value_t = 1.0)]
    num_train_epochs: f64,
    /// Train on the rows in the order of the file
    #[arg(long, help_heading = "Data")]
    no_shuffle: bool,
    /// Maximum number of tokens of a prompt; rows with longer prompts are skipped, not truncated [default: the model's context
    /// length]
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    max_prompt_length: Option<usize>,
    /// Maximum number of tokens of a row, prompt and completion together (align: prompt and longest response); longer rows
    /// are skipped, not truncated [default: the model's context length]
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

/// The columns of a preference dataset, in `align`, `dpo` and `reward`; `align` uses only the prompts.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Data")]
#[serde(rename_all = "kebab-case")]
struct PairColumns {
    /// Column of the prompt
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    prompt_column: String,
    /// Column of the chosen response
    #[arg(long, value_name = "NAME", default_value = "chosen")]
    chosen_column: String,
    /// Column of the rejected response
    #[arg(long, value_name = "NAME", default_value = "rejected")]
    rejected_column: String,
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
    /// Number of responses to each prompt; with more than 2, see --pairs; rloo and grpo use all of them [default: 2; grpo: 8]
    #[arg(long, value_name = "K", alias = "num-generations", help_heading = "Sampling")]
    num_samples: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    judge: JudgeArgs,
    /// Use the judge's probability as a soft label instead of its verdict as a hard label
    #[arg(long, help_heading = "Judge")]
    soft_labels: bool,
    /// Pairs to train on
    #[arg(long, value_name = "WHICH", help_heading = "Judge", default_value = "best-worst")]
    pairs: PairChoice,
    /// Minimum probability of the judge's verdict for a pair to be trained on, 0.5 to 1
    #[arg(long, value_name = "P", help_heading = "Judge", default_value_t = 0.5)]
    min_confidence: f64,
    /// Active learning: sample N times the prompts of a step and judge only the pairs with the smallest difference of implicit
    /// rewards
    #[arg(long, value_name = "N", help_heading = "Judge", default_value_t = 1)]
    active: usize,
    /// Number of prompts, from the first one on, whose pairs are judged in both orders to measure position bias, with judges
    /// that see one order (command, --judge-orders one)
    #[arg(long, value_name = "N", help_heading = "Judge", default_value_t = 64)]
    judge_probes: usize,
    /// Maximum fraction of invalid verdicts; the run fails above it [default: 0.5; human: 1, since a person may skip pairs]
    #[arg(long, value_name = "SHARE", help_heading = "Judge")]
    max_invalid_ratio: Option<f64>,
    /// Number of steps whose pairs are judged ahead while the policy trains, with judges outside this process (command, openai,
    /// human, or an ensemble with one of them); responses are off-policy by as many steps [default: 0; human: 1]
    #[arg(long, value_name = "N", help_heading = "Judge")]
    async_level: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    evaluation: EvaluationArgs,
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
    /// Do not append the end-of-sequence token to completions
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
    /// Do not append the end-of-sequence token to completions
    #[arg(long, help_heading = "Data")]
    no_append_eos: bool,
    /// Coefficient of the loss term (chosen + rejected)^2, which keeps scores centred at 0; 0.01 is usual
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
    /// Column of the prompt
    #[arg(long, value_name = "NAME", help_heading = "Data", default_value = "prompt")]
    prompt_column: String,
    /// Column of the completion
    #[arg(long, value_name = "NAME", help_heading = "Data", default_value = "completion")]
    completion_column: String,
    /// Column of a text without a prompt
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Data",
        alias = "dataset-text-field",
        default_value = "text"
    )]
    text_column: String,
    /// Column of a conversation
    #[arg(long, value_name = "NAME", help_heading = "Data", default_value = "messages")]
    messages_column: String,
    /// Do not append the end-of-sequence token to completions
    #[arg(long, help_heading = "Data")]
    no_append_eos: bool,
}

/// Defaults that differ between the commands. Learning rates are for a hidden size of 2048.
struct Defaults {
    learning_rate: f64,
    learning_rate_lora: f64,
    batch_size: usize,
}

const PREFERENCE: Defaults = Defaults { learning_rate: 1e-5, learning_rate_lora: 5e-5, batch_size: 8 };
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
        let sure = self.min_confidence;
        ensure((0.5..=1.0).contains(&sure), "--min-confidence", sure, "a probability from 0.5 to 1")?;
        match &loss {
            OnlineLoss::Preference(objective) if self.soft_labels => objective.check_soft_labels()?,
            OnlineLoss::Preference(_) => {}
            OnlineLoss::Policy(loss) => {
                let of_pairs = [
                    ("--soft-labels", self.soft_labels, "has no labels"),
                    ("--pairs", self.pairs == PairChoice::All, "trains on all responses to a prompt"),
                    ("--min-confidence", sure > 0.5, "trains on all responses to a prompt"),
                ];
                if let Some((flag, _, why)) = of_pairs.into_iter().find(|(_, given, _)| *given) {
                    let why = format!("is for losses on pairs: {} {why}; leave it out", loss.name());
                    return Err(Error::config(flag, why));
                }
            }
        }
        // 0.9 for preference losses and 1 for policy gradients, as in their papers and TRL.
        let temperature = if loss.preference().is_some() { 0.9 } else { 1.0 };
        let sampling = self.sampling.plan(temperature, 64)?;
        if sampling.params.temperature == 0.0 {
            let why = "0 makes all responses to a prompt identical, so there is nothing to compare: raise it";
            return Err(Error::config("--temperature", why));
        }
        let usual = match &loss {
            OnlineLoss::Policy(loss) if loss.advantage != Advantage::LeaveOneOut => 8,
            _ => 2,
        };
        let judge = self.judge.plan()?;
        let person = judge.desk().is_some();
        let k = *self.num_samples.get_or_insert(usual);
        let share = *self.max_invalid_ratio.get_or_insert(if person { 1.0 } else { 0.5 });
        ensure(k >= 2, "--num-samples", k, "2 or more, which is needed to compare responses")?;
        ensure((0.0..=1.0).contains(&share), "--max-invalid-ratio", share, "between 0 and 1")?;
        let level = *self.async_level.get_or_insert(if person { 1 } else { 0 });
        ensure(level <= 64, "--async-level", level, "at most 64: responses are off-policy by as many steps")?;
        refuse_own_input(&train.options, &self.judge.inputs())?;
        refuse_own_input(&train.options, &self.evaluation.inputs())?;
        if level > 0 && !judge.is_remote() {
            let why = format!(
                "is {level}, but it needs a judge outside the program (command, openai, human, or an ensemble with one of \
                 them): leave it out"
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
            pairs: self.pairs,
            min_confidence: self.min_confidence as f32,
            active: self.active,
            probes: self.judge_probes,
            max_invalid_ratio: share,
            async_level: level,
        };
        Ok(AlignPlan { train, align, judge, held_out })
    }
}

impl DpoArgs {
    pub fn plan(mut self) -> Result<DpoPlan> {
        let mut train = self.train.plan(&PREFERENCE)?;
        train.columns = self.columns.columns();
        train.options.reference_sync = self.reference.plan()?;
        let loss = self.loss.plan()?;
        if loss.needs_reference_samples() {
            let why = "xpo needs pairs with one response of the reference model: use oaif align, which samples them";
            return Err(Error::config("--loss", why));
        }
        refuse_own_input(&train.options, &self.evaluation.inputs())?;
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
        ensure(usable, "--center-rewards-coefficient", centre, "0 or a positive number")?;
        refuse_own_input(&train.options, &self.evaluation.inputs())?;
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

/// The flags with their values, after `plan` has filled in the defaults.
fn resolved(args: &impl Serialize) -> Result<Value> {
    serde_json::to_value(args)
        .map_err(|e| Error::config("arguments", format!("cannot be written as JSON: {e}")))
}

impl TrainArgs {
    /// Fills in the defaults. The caller sets `columns` and `config`.
    fn plan(&mut self, defaults: &Defaults) -> Result<TrainPlan> {
        let (adapter, gpu) = (self.adapter.plan()?, self.gpu.plan(self.profile.is_some()));
        let lora = self.lora.plan(adapter.is_some())?;
        let few = lora.is_some() || adapter.is_some();
        let rate = if few { defaults.learning_rate_lora } else { defaults.learning_rate };
        let usual_rate = self.optimisation.learning_rate.is_none().then_some(rate);
        let rate = *self.optimisation.learning_rate.get_or_insert(rate);
        let batch_size = *self.per_device_train_batch_size.get_or_insert(defaults.batch_size);
        ensure(rate > 0.0 && rate.is_finite(), "--learning-rate", rate, "a positive number")?;
        let max_steps = match self.max_steps {
            -1 => None,
            n if n > 0 => Some(n as usize),
            n => return unusable("--max-steps", n, "1 or more, or -1 to use --num-train-epochs"),
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
            let why = "would delete the run that --resume-from-checkpoint resumes: give one of the two";
            return Err(Error::config("--overwrite-output-dir", why));
        }
        let output_dir = run_dir(self.output_dir.as_deref().unwrap_or(Path::new("")))?;
        let inputs = given([
            ("--model", Some(self.model.clone())),
            ("--dataset", self.dataset.clone()),
            ("--adapter", adapter.clone()),
        ]);
        let optional = |flag, value: Option<usize>| value.map(|n| positive(flag, n)).transpose();
        let options = TrainOptions {
            output_dir: Some(output_dir.clone()),
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
            base_dtype: self.base_dtype.plan(),
            optimiser: self.optimisation.optimiser()?,
            max_grad_norm: norm as f32,
            seed: self.seed,
            tensorboard: self.report_to == ReportTo::Tensorboard,
            save_steps: (self.save_steps > 0).then_some(self.save_steps),
            save_total_limit: optional("--save-total-limit", self.save_total_limit)?,
            gradient_checkpointing: self.optimisation.gradient_checkpointing,
            shuffle: !self.no_shuffle,
            max_prompt_length: optional("--max-prompt-length", self.max_prompt_length)?,
            max_length: optional("--max-length", self.max_length)?,
            reduce_dtype: self.optimisation.reduce_dtype.dtype(),
            shard_optimiser: self.optimisation.shard_optim,
            ranks: Ranks::default(),
            ranks_at_start: None,
        };
        refuse_own_input(&options, &inputs)?;
        let trace = self.profile.clone().map(|file| file.unwrap_or_else(|| output_dir.join("trace.json")));
        Ok(TrainPlan {
            model: model_dir("--model", &self.model)?,
            dataset: self.dataset.as_deref().map(dataset_file).transpose()?.into_iter().collect(),
            columns: Columns::default(),
            options,
            usual_rate,
            gpu,
            dry_run: self.dry_run,
            limits: self.limits()?,
            trace,
            report: self.report,
            #[cfg(feature = "ui")]
            ui: self.ui.then_some(UiOptions { port: self.ui_port, address: self.ui_address }),
            rank_folder: None,
            config: Value::Null,
        })
    }
}

impl TrainArgs {
    /// The limits that were given, with WebGPU's defaults for the others.
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

/// Parses a number of bytes, KiB, MiB or GiB.
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
