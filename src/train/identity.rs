//! The identity of a run: everything that determines its numbers. A run resumes only with the same identity, or with
//! changes that `allow-changes` names.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evaluation::Evaluation;
use super::options::{AlignOptions, PairChoice, TrainOptions};
use super::policy::Policy;
use super::policy_loss::{Advantage, OnlineLoss, TokenWeights};
use super::rows::EncodedRows;
use super::schedule::ScheduleKind;
use crate::digest::{Digest, Digester};
use crate::error::{Error, Result};
use crate::model::fingerprint;
use crate::optim::OptimiserKind;
use crate::preference::{LossOptions, Objective};

/// Everything that determines the numbers of a run. The keys, including those of the groups, are the names of the
/// options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RunIdentity {
    /// The kind of training.
    pub command: Command,
    /// The base weights and their configuration.
    model: Digest,
    /// The LoRA adapter with which the run started.
    #[serde(deserialize_with = "Option::deserialize")]
    adapter: Option<Digest>,
    tokenizer: Digest,
    #[serde(deserialize_with = "Option::deserialize")]
    chat_template: Option<Digest>,
    /// The encoded training rows, in their order.
    dataset: String,
    /// The evaluation dataset.
    #[serde(deserialize_with = "Option::deserialize")]
    eval_dataset: Option<String>,
    training: Training,
    #[serde(deserialize_with = "Option::deserialize")]
    lora: Option<Lora>,
    /// Whether completions end with the end-of-sequence token.
    #[serde(deserialize_with = "Option::deserialize")]
    append_eos: Option<bool>,
    #[serde(deserialize_with = "Option::deserialize")]
    loss: Option<LossOptions>,
    #[serde(deserialize_with = "Option::deserialize")]
    policy_gradient: Option<PolicyGradient>,
    /// Only for reward models.
    #[serde(deserialize_with = "Option::deserialize")]
    center_rewards_coefficient: Option<f32>,
    #[serde(deserialize_with = "Option::deserialize")]
    online: Option<Online>,
    /// The judge's own description, see [`Judge::identity`](crate::judge::Judge::identity).
    #[serde(deserialize_with = "Option::deserialize")]
    judge: Option<BTreeMap<String, String>>,
}

/// The kinds of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Command {
    Align,
    Sft,
    Dpo,
    Reward,
}

impl Command {
    /// The name of the subcommand.
    pub fn name(self) -> &'static str {
        match self {
            Command::Align => "align",
            Command::Sft => "sft",
            Command::Dpo => "dpo",
            Command::Reward => "reward",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Training {
    learning_rate: f64,
    lr_scheduler_type: String,
    warmup_steps: usize,
    /// The number of steps of the whole run, if the learning rate depends on it.
    #[serde(deserialize_with = "Option::deserialize")]
    max_steps: Option<usize>,
    optim: String,
    #[serde(deserialize_with = "Option::deserialize")]
    adam_beta1: Option<f32>,
    #[serde(deserialize_with = "Option::deserialize")]
    adam_beta2: Option<f32>,
    #[serde(deserialize_with = "Option::deserialize")]
    adam_epsilon: Option<f32>,
    weight_decay: f32,
    max_grad_norm: f32,
    per_device_train_batch_size: usize,
    gradient_accumulation_steps: usize,
    /// The number of ranks for which a step takes rows. Runs of older versions had one.
    #[serde(default = "one")]
    ranks: usize,
    seed: u32,
    shuffle: bool,
    #[serde(deserialize_with = "Option::deserialize")]
    max_prompt_length: Option<usize>,
    #[serde(deserialize_with = "Option::deserialize")]
    max_length: Option<usize>,
    /// How the reference model follows the policy.
    #[serde(deserialize_with = "Option::deserialize")]
    ref_model_mixup_alpha: Option<f32>,
    #[serde(deserialize_with = "Option::deserialize")]
    ref_model_sync_steps: Option<usize>,
    dtype: String,
    tier: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Lora {
    lora_r: usize,
    lora_alpha: f32,
    use_rslora: bool,
    lora_target_modules: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PolicyGradient {
    advantage: Advantage,
    token_weights: TokenWeights,
    epsilon: f32,
    epsilon_high: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Online {
    num_samples: usize,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    max_new_tokens: usize,
    stop: Vec<String>,
    soft_labels: bool,
    pairs: PairChoice,
    min_confidence: f32,
    active: usize,
    judge_probes: usize,
    async_level: usize,
}

/// Options that can never change within a run.
const FIXED: [&str; 11] = [
    "command",
    "model",
    "adapter",
    "lora-r",
    "lora-alpha",
    "use-rslora",
    "lora-target-modules",
    "optim",
    "ref-model-mixup-alpha",
    "ref-model-sync-steps",
    "dtype",
];

/// The options of [`PolicyGradient`]. They are accepted by name because the run that wrote the checkpoint may have had
/// them.
const POLICY_GRADIENT: [&str; 4] = ["advantage", "token-weights", "epsilon", "epsilon-high"];

/// An option whose value changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// The number of steps done before the change.
    pub after_step: usize,
    /// The option.
    pub name: String,
    /// The old value.
    pub from: Value,
    /// The new value.
    pub to: Value,
}

/// The first name whose value differs in `other`, and both values.
pub(super) fn first_difference(
    one: BTreeMap<String, Value>,
    mut other: BTreeMap<String, Value>,
) -> Option<(String, Value, Value)> {
    one.into_iter().find_map(|(name, value)| {
        let there = other.remove(&name).unwrap_or_default();
        (value != there).then_some((name, value, there))
    })
}

fn one() -> usize {
    1
}

impl RunIdentity {
    /// The number of ranks for which a step takes rows.
    pub fn ranks(&self) -> usize {
        self.training.ranks
    }

    /// The first option whose value differs in `other`, and both values.
    pub fn difference(&self, other: &RunIdentity) -> Option<(String, Value, Value)> {
        first_difference(self.options(), other.options())
    }

    /// The judge's own description, in online training.
    pub fn judge(&self) -> Option<&BTreeMap<String, String>> {
        self.judge.as_ref()
    }

    /// The part that all kinds of training have in common.
    pub fn new(
        command: Command,
        policy: &Policy,
        train: &TrainOptions,
        rows: &EncodedRows,
        total_steps: usize,
    ) -> Result<RunIdentity> {
        let (adam_beta1, adam_beta2, adam_epsilon) = match train.optimiser {
            OptimiserKind::AdamW { beta1, beta2, epsilon, .. } => (Some(beta1), Some(beta2), Some(epsilon)),
            OptimiserKind::Adafactor { .. } => (None, None, None),
        };
        let (optim, weight_decay) = match train.optimiser {
            OptimiserKind::AdamW { weight_decay, .. } => ("adamw", weight_decay),
            OptimiserKind::Adafactor { weight_decay } => ("adafactor", weight_decay),
        };
        let (steps_matter, warmup_steps) = match train.schedule {
            ScheduleKind::Linear | ScheduleKind::Cosine => (true, train.warmup_of(total_steps)),
            // A warm-up ratio refers to the steps of the whole run.
            ScheduleKind::ConstantWithWarmup => (train.warmup_by_ratio(), train.warmup_of(total_steps)),
            ScheduleKind::Constant => (false, 0),
        };
        // The digest of a given adapter includes its shape.
        let lora = train.lora.as_ref().filter(|_| train.adapter.is_none()).map(|lora| Lora {
            lora_r: lora.rank,
            lora_alpha: lora.alpha,
            use_rslora: lora.rank_stabilised,
            lora_target_modules: lora.targets.to_string(),
        });
        Ok(RunIdentity {
            command,
            model: fingerprint::model(&policy.dir)?,
            adapter: train.adapter.as_deref().map(fingerprint::adapter).transpose()?,
            tokenizer: fingerprint::tokenizer(&policy.dir, policy.tokenizer.eos_ids())?,
            chat_template: fingerprint::chat_template(&policy.dir)?,
            dataset: dataset(rows)?,
            eval_dataset: None,
            training: Training {
                learning_rate: train.learning_rate,
                lr_scheduler_type: train.schedule.name().into(),
                warmup_steps,
                max_steps: steps_matter.then_some(total_steps),
                optim: optim.into(),
                adam_beta1,
                adam_beta2,
                adam_epsilon,
                weight_decay,
                max_grad_norm: train.max_grad_norm,
                per_device_train_batch_size: train.batch_size,
                gradient_accumulation_steps: train.accumulation,
                ranks: train.ranks_of_step(),
                seed: train.seed,
                shuffle: train.shuffle,
                max_prompt_length: train.max_prompt_length,
                max_length: train.max_length,
                ref_model_mixup_alpha: train.reference_sync.map(|sync| sync.alpha),
                ref_model_sync_steps: train.reference_sync.map(|sync| sync.steps),
                dtype: train.base_dtype.map_or("auto", |format| format.name()).into(),
                tier: policy.model.gpu().tier().to_string(),
            },
            lora,
            append_eos: None,
            loss: None,
            policy_gradient: None,
            center_rewards_coefficient: None,
            online: None,
            judge: None,
        })
    }

    /// Adds held-out rows.
    pub fn with_held_out(self, rows: &EncodedRows) -> Result<RunIdentity> {
        Ok(RunIdentity { eval_dataset: Some(dataset(rows)?), ..self })
    }

    /// Adds held-out prompts.
    pub fn with_evaluation(self, evaluation: &Evaluation) -> RunIdentity {
        RunIdentity { eval_dataset: Some(evaluation.identity()), ..self }
    }

    /// Adds the options of given completions.
    pub fn with_completions(self, append_eos: bool) -> RunIdentity {
        RunIdentity { append_eos: Some(append_eos), ..self }
    }

    /// Adds a preference loss.
    pub fn with_loss(mut self, loss: &Objective) -> RunIdentity {
        self.loss = Some(loss.options());
        self
    }

    /// Adds the loss of online training.
    pub fn with_online_loss(mut self, loss: &OnlineLoss) -> RunIdentity {
        match loss {
            OnlineLoss::Preference(objective) => self.with_loss(objective),
            OnlineLoss::Policy(policy) => {
                self.loss = Some(LossOptions {
                    loss: policy.name().into(),
                    beta: Some(policy.beta),
                    ..LossOptions::default()
                });
                self.policy_gradient = Some(PolicyGradient {
                    advantage: policy.advantage,
                    token_weights: policy.tokens,
                    epsilon: policy.epsilon,
                    epsilon_high: policy.epsilon_high,
                });
                self
            }
        }
    }

    /// Adds the coefficient that centres the rewards around 0.
    pub fn with_centring(self, coefficient: f32) -> RunIdentity {
        RunIdentity { center_rewards_coefficient: Some(coefficient), ..self }
    }

    /// Adds the options of sampling and judging.
    pub fn with_feedback(mut self, options: &AlignOptions, judge: BTreeMap<String, String>) -> RunIdentity {
        let sampling = options.sampling;
        self.online = Some(Online {
            num_samples: options.num_samples,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            max_new_tokens: options.max_new_tokens,
            stop: options.stop.clone(),
            soft_labels: options.soft_labels,
            pairs: options.pairs,
            min_confidence: options.min_confidence,
            active: options.active,
            judge_probes: options.probes,
            async_level: options.async_level,
        });
        self.judge = Some(judge);
        self
    }

    /// All options with their values.
    fn options(&self) -> BTreeMap<String, Value> {
        // Serialized and parsed as in a checkpoint, because not every number survives that unchanged.
        let text = serde_json::to_string(self).expect("JSON of plain values");
        let Ok(Value::Object(keys)) = serde_json::from_str(&text) else { unreachable!("a struct") };
        let mut options = BTreeMap::new();
        for (key, value) in keys {
            match value {
                Value::Object(group) => options.extend(group),
                value => drop(options.insert(key, value)),
            }
        }
        options.retain(|_, value| !value.is_null());
        options
    }

    /// The differences from the run that wrote a checkpoint after `step` steps.
    fn changes(&self, saved: &RunIdentity, step: usize) -> Vec<Change> {
        let (was, is) = (saved.options(), self.options());
        let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        let of = |options: &BTreeMap<String, Value>, name| options.get(name).cloned().unwrap_or_default();
        names
            .into_iter()
            .map(|name| Change {
                after_step: step,
                name: name.clone(),
                from: of(&was, name),
                to: of(&is, name),
            })
            .filter(|change| change.from != change.to)
            .collect()
    }

    /// Returns the changes since the run that wrote a checkpoint. All of them must be named in `allowed`.
    ///
    /// # Errors
    /// [`Error::Config`] for changes that are not allowed, with both values and the way out.
    pub fn resume(&self, saved: &RunIdentity, step: usize, allowed: &[String]) -> Result<Vec<Change>> {
        if saved.command != self.command {
            let why = format!(
                "the checkpoint was written by oaif {}, but this is oaif {}: resume with oaif {0}",
                saved.command.name(),
                self.command.name()
            );
            return Err(Error::config("resume-from-checkpoint", why));
        }
        let changes = self.changes(saved, step);
        let permitted = |change: &&Change| {
            let group = change.name.starts_with("judge-").then_some("judge");
            !FIXED.contains(&&*change.name)
                && allowed.iter().any(|name| *name == change.name || Some(name.as_str()) == group)
        };
        let (_, refused): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(permitted);
        if refused.is_empty() {
            return Ok(changes);
        }
        let list = |values: Vec<String>| values.join(", ");
        let was = list(refused.iter().map(|c| format!("{} {}", c.name, shown(&c.from))).collect());
        let is = list(refused.iter().map(|c| format!("{} {}", c.name, shown(&c.to))).collect());
        let fixed: Vec<&str> =
            refused.iter().map(|c| c.name.as_str()).filter(|name| FIXED.contains(name)).collect();
        let way_out = match fixed.is_empty() {
            true => {
                let names: Vec<&str> = refused
                    .iter()
                    .map(|c| c.name.as_str())
                    .chain(allowed.iter().map(|a| a.as_str()))
                    .collect();
                format!(
                    "use the same value, allow the change with `allow-changes` {}, or start a new run",
                    names.join(",")
                )
            }
            false => {
                format!(
                    "{} cannot change within a run: use the same value, or start a new run",
                    fixed.join(", ")
                )
            }
        };
        let why = format!("the checkpoint was written with {was}, but this run has {is}: {way_out}");
        Err(Error::config("resume-from-checkpoint", why))
    }

    /// Rejects names that are not options or that cannot be changed.
    pub fn check_names(&self, allowed: &[String]) -> Result<()> {
        let known = self.options();
        let optional = [
            "chat-template",
            "eval-dataset",
            "max-prompt-length",
            "max-length",
            "max-steps",
            "stop",
            "judge",
        ];
        for name in allowed {
            if FIXED.contains(&name.as_str()) {
                let why = format!("{name} cannot change within a run: start a new run");
                return Err(Error::config("allow-changes", why));
            }
            let judge = known.contains_key("judge") && name.starts_with("judge-");
            let loss = self.loss.is_some() && LossOptions::NAMES.iter().any(|(option, _)| option == name);
            let gradient = self.online.is_some() && POLICY_GRADIENT.contains(&name.as_str());
            if !known.contains_key(name) && !optional.contains(&name.as_str()) && !judge && !loss && !gradient
            {
                let names: Vec<&str> =
                    known.keys().map(|k| k.as_str()).filter(|k| !FIXED.contains(k)).collect();
                let why = format!(
                    "{name:?} is not an option that can be changed: choose from {}",
                    names.join(", ")
                );
                return Err(Error::config("allow-changes", why));
            }
        }
        Ok(())
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Describes a dataset by its number of rows and its digest.
pub(super) fn described(rows: usize, digester: Digester) -> String {
    format!("of {rows} rows with digest {}", digester.finish())
}

/// A digest over the tokens of the rows, their margins, and the texts shown to the judge.
fn dataset(rows: &EncodedRows) -> Result<String> {
    let mut digester = Digester::default();
    for row in 0..rows.len() {
        let tree = rows.tree(row)?;
        digester.ids(&tree.prompt);
        tree.responses.iter().for_each(|response| digester.ids(response));
    }
    if let Some(margins) = rows.margins() {
        digester.bytes(bytemuck::cast_slice(margins));
    }
    for row in (0..rows.len()).filter(|_| rows.have_texts()) {
        digester.bytes(rows.text(row)?.as_bytes());
    }
    Ok(described(rows.len(), digester))
}
