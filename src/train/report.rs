//! What happened in a step. Serialised, a report is a row of `metrics.jsonl`; names are TRL's where it has one.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::eval::ensemble::VotesReport;
use crate::judge::queue::Usage;
use crate::judge::{PairOutcome, Verdict, orders_disagree};

/// A step, as `metrics.jsonl` has it, and what it does not have: the pairs, the time that is left.
///
/// Parts that a kind of training has not are `None`, and no keys. Sums and means are over real tokens alone.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct StepReport {
    /// Which one, from 1.
    pub step: usize,
    /// The last one.
    #[serde(skip)]
    pub total_steps: usize,
    /// Mean over the pairs (in `sft`: over completion tokens), `None` for a step without anything to learn from.
    pub loss: Option<f64>,
    /// What the optimiser did; `None` for a step without an update.
    #[serde(flatten)]
    pub update: Option<UpdateReport>,
    /// The pairs that were learnt from.
    #[serde(flatten)]
    pub preference: Option<PreferenceReport>,
    /// What became of scores where a policy gradient is learnt from them.
    #[serde(flatten)]
    pub gradient: Option<PolicyGradientReport>,
    /// The policy's log-probabilities of the responses that were learnt from.
    #[serde(flatten)]
    pub policy: Option<PolicyReport>,
    /// Entropy of the next-token distribution, in nats, mean over tokens.
    #[serde(rename = "objective/entropy", skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// The responses of the step, sampled or given.
    #[serde(flatten)]
    pub responses: ResponseReport,
    /// What the judge said of them.
    #[serde(flatten)]
    pub judging: Option<JudgeReport>,
    /// What the policy did on held-out prompts, where it was evaluated after the step.
    #[serde(flatten)]
    pub evaluation: Option<EvaluationReport>,
    /// What became of held-out pairs, where the policy was evaluated on them after the step.
    #[serde(flatten)]
    pub held_out: Option<HeldOutReport>,
    /// Passes over the dataset so far.
    pub epoch: f64,
    /// Tokens that went through the model so far.
    pub num_tokens: u64,
    /// Steps without a finite gradient so far.
    pub non_finite_steps: usize,
    /// Where the time went.
    #[serde(flatten)]
    pub times: Times,
    /// What each rank did, where there are several.
    #[serde(flatten)]
    pub ranks: Option<RanksReport>,
    /// The device's memory in use, in bytes.
    #[serde(rename = "memory/device_bytes")]
    pub device_bytes: u64,
    /// Every pair that the judge was shown: rows of `pairs.jsonl`.
    #[serde(skip)]
    pub pairs: Vec<PairReport>,
    /// Every response that it rated by itself: rows of `pairs.jsonl`, too.
    #[serde(skip)]
    pub ratings: Vec<RatingReport>,
    /// What its user should know of the run as a whole, a sentence each; the observer has heard of it already.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// To the end of the run; `None` after the first step, which says nothing of the others: kernels are compiled in it.
    #[serde(skip)]
    pub seconds_left: Option<f64>,
}

impl StepReport {
    /// The mean difference of the rewards of chosen and rejected; `None` where there are no pairs.
    pub fn margin(&self) -> Option<f64> {
        self.preference.map(|preference| preference.margins)
    }

    /// The share of the decided pairs in which the judge preferred the first response; `None` where no judge was
    /// asked or none was decided.
    pub fn first_preferred(&self) -> Option<f64> {
        self.judging.as_ref()?.first
    }

    /// Whether there was something to learn from, and a gradient.
    pub(super) fn taught(&self) -> bool {
        match (self.loss, self.update) {
            (None, _) | (_, None) => false,
            (Some(loss), Some(update)) => loss == 0.0 || update.grad_norm != Some(0.0),
        }
    }
}

/// What the ranks of a run did in a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RanksReport {
    /// Milliseconds of each rank's own work, without those in which it exchanged something or waited for others.
    #[serde(rename = "ranks/busy_ms")]
    pub busy_ms: Vec<f64>,
    /// The one that worked longest.
    #[serde(rename = "ranks/slowest")]
    pub slowest: usize,
    /// Bytes that rank 0 sent to others.
    #[serde(rename = "ranks/sent_bytes")]
    pub sent_bytes: u64,
}

impl RanksReport {
    /// Of ranks that were busy for so long.
    pub(super) fn new(busy_ms: Vec<f64>, sent_bytes: u64) -> RanksReport {
        let slowest =
            (0..busy_ms.len()).max_by(|a, b| busy_ms[*a].total_cmp(&busy_ms[*b])).unwrap_or_default();
        RanksReport { busy_ms: busy_ms.into_iter().map(hundredths).collect(), slowest, sent_bytes }
    }
}

/// An update of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct UpdateReport {
    /// The global norm before clipping; `None` where it is not finite, and no weight was changed.
    pub grad_norm: Option<f32>,
    /// The step's.
    pub learning_rate: f64,
}

/// Means over the pairs that were learnt from. A reward is β (log π − log π₀) of a response, summed over its tokens, or in
/// the training of a reward model its score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PreferenceReport {
    /// Of the chosen response.
    #[serde(rename = "rewards/chosen")]
    pub chosen: f64,
    /// Of the rejected one.
    #[serde(rename = "rewards/rejected")]
    pub rejected: f64,
    /// Share of the pairs with a positive margin.
    #[serde(rename = "rewards/accuracies")]
    pub accuracies: f64,
    /// The chosen one's less the rejected one's.
    #[serde(rename = "rewards/margins")]
    pub margins: f64,
}

/// Means over the responses that were learnt from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PolicyReport {
    /// log π of the chosen response, where there are pairs.
    #[serde(rename = "logps/chosen", skip_serializing_if = "Option::is_none")]
    pub logps_chosen: Option<f64>,
    /// log π of the rejected one.
    #[serde(rename = "logps/rejected", skip_serializing_if = "Option::is_none")]
    pub logps_rejected: Option<f64>,
    /// log π − log π₀ over the responses; where they were sampled from π, an estimate of the KL divergence.
    #[serde(rename = "objective/kl")]
    pub kl: f64,
    /// β of the loss.
    pub beta: f64,
}

/// The scores that a policy gradient was learnt from; names are those of TRL's GRPO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PolicyGradientReport {
    /// Mean score.
    pub reward: f64,
    /// Their standard deviation over all responses.
    pub reward_std: f64,
    /// Share of the prompts all of whose responses have the same score.
    pub frac_reward_zero_std: f64,
    /// Share of the tokens whose ratio was clipped.
    #[serde(rename = "clip_ratio/region_mean")]
    pub clip_ratio: f64,
}

/// Means over a step's responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ResponseReport {
    /// Tokens, of sampled ones.
    #[serde(rename = "completions/mean_length", skip_serializing_if = "Option::is_none")]
    pub mean_length: Option<f64>,
    /// Share that ended with the end-of-sequence token.
    #[serde(rename = "val/contain_eos_token", skip_serializing_if = "Option::is_none", default)]
    pub contain_eos_token: Option<f64>,
}

/// What the judge said in a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JudgeReport {
    /// Pairs asked about.
    #[serde(rename = "judge/judged")]
    pub judged: usize,
    /// Share of the decided ones that the first response won.
    #[serde(rename = "judge/first")]
    pub first: Option<f64>,
    /// Pairs without a preference.
    #[serde(rename = "judge/tie")]
    pub tie: usize,
    /// Pairs without a usable verdict.
    #[serde(rename = "judge/invalid")]
    pub invalid: usize,
    /// Pairs of equal responses, which nobody was asked about.
    #[serde(rename = "judge/identical")]
    pub identical: usize,
    /// Pairs that were shown in both orders.
    #[serde(rename = "judge/both_orders")]
    pub both_orders: usize,
    /// Those of them whose two orders disagree.
    #[serde(rename = "judge/order_flip")]
    pub order_flip: usize,
    /// Share of the decided pairs so far that the longer response won.
    #[serde(rename = "judge/longer")]
    pub longer: Option<f64>,
    /// Pairs of which the judge was not sure enough to learn from them.
    #[serde(rename = "judge/unsure")]
    pub unsure: usize,
    /// Pairs learnt from.
    #[serde(rename = "judge/learnt")]
    pub learnt: usize,
    /// Wall time of the judge a judged pair.
    #[serde(rename = "judge/latency_ms")]
    pub latency_ms: f64,
    /// Updates between the policy that drew the responses and the one that learns from them.
    #[serde(rename = "judge/off_policy_steps")]
    pub off_policy_steps: usize,
    /// The judge's probability for the chosen response, mean over the pairs learnt from; of ratings their mean.
    #[serde(rename = "objective/scores")]
    pub scores: Option<f64>,
    /// 2p − 1 of it.
    #[serde(rename = "objective/scores_margin")]
    pub scores_margin: Option<f64>,
    /// How far the members of an ensemble agreed so far; `None` of other judges.
    #[serde(flatten)]
    pub votes: Option<VotesReport>,
    /// What was used so far, where a judge counts it.
    #[serde(flatten)]
    pub used: Option<UsageReport>,
}

/// The policy's answers to held-out prompts against those of the start, by the run's own judge in both orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct EvaluationReport {
    /// (wins + ties/2) / prompts with a usable verdict.
    #[serde(rename = "eval/win_rate")]
    pub win_rate: f64,
    /// Lower end of its 95 % interval.
    #[serde(rename = "eval/win_rate_low")]
    pub win_rate_low: f64,
    /// Upper end.
    #[serde(rename = "eval/win_rate_high")]
    pub win_rate_high: f64,
    /// Prompts with a usable verdict.
    #[serde(rename = "eval/prompts")]
    pub prompts: usize,
    /// Ties among them.
    #[serde(rename = "eval/ties")]
    pub ties: usize,
    /// Mean length of the policy's answers in tokens.
    #[serde(rename = "eval/mean_length")]
    pub mean_length: f64,
    /// Mean length of the reference model's responses in tokens.
    #[serde(rename = "eval/reference_length")]
    pub reference_length: f64,
    /// Mean of log π − log π of the start over them, in nats.
    #[serde(rename = "eval/kl")]
    pub kl: f64,
}

/// Means over held-out pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct HeldOutReport {
    /// The loss.
    #[serde(rename = "eval/loss")]
    pub loss: f64,
    /// Share of the pairs whose chosen response has the higher reward.
    #[serde(rename = "eval/rewards/accuracies")]
    pub accuracies: f64,
    /// The chosen one's reward less the rejected one's.
    #[serde(rename = "eval/rewards/margins")]
    pub margins: f64,
    /// How many pairs.
    #[serde(rename = "eval/pairs")]
    pub pairs: usize,
}

/// What a judge used so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct UsageReport {
    /// Requests that were sent.
    #[serde(rename = "judge/requests")]
    pub requests: u64,
    /// Those that failed and were sent again.
    #[serde(rename = "judge/failed_requests")]
    pub failed: u64,
    /// Answers from a cache.
    #[serde(rename = "judge/cached")]
    pub cached: u64,
    /// Tokens read and written.
    #[serde(rename = "judge/tokens")]
    pub tokens: u64,
    /// Money.
    #[serde(rename = "judge/cost")]
    pub cost: f64,
}

impl UsageReport {
    /// `None` for a judge that has nothing to count.
    pub(super) fn of(used: Usage) -> Option<UsageReport> {
        let Usage { requests, failed, cached, prompt_tokens, completion_tokens, cost } = used;
        let tokens = prompt_tokens + completion_tokens;
        (used != Usage::default()).then_some(UsageReport { requests, failed, cached, tokens, cost })
    }
}

/// Milliseconds of wall time, and of the GPU's for forward and backward.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// The whole step.
    #[serde(rename = "time/step_ms")]
    pub step_ms: f64,
    /// Tokens sampled and trained on, a second.
    #[serde(rename = "time/tokens_per_second")]
    pub tokens_per_second: f64,
    /// Its parts.
    #[serde(flatten)]
    pub phases: Phases,
}

/// Milliseconds by phase: "sampling", "judging", "reference", "forward", "backward", "update".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phases(Vec<(&'static str, f64)>);

impl Phases {
    /// Adds to a phase.
    pub(super) fn add(&mut self, phase: &'static str, ms: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == phase) {
            Some((_, sum)) => *sum += ms,
            None => self.0.push((phase, ms)),
        }
    }

    /// The milliseconds of a phase; 0 for one that the step had not.
    pub fn ms(&self, phase: &str) -> f64 {
        self.0.iter().find(|(name, _)| *name == phase).map_or(0.0, |(_, ms)| *ms)
    }

    /// All of them, in the order in which they began.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().copied()
    }
}

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (phase, ms) in &self.0 {
            map.serialize_entry(&format!("time/{phase}_ms"), &hundredths(*ms))?;
        }
        map.end()
    }
}

/// As precise as clocks are.
pub(super) fn hundredths(ms: f64) -> f64 {
    (ms * 1e2).round() / 1e2
}

/// A pair that the judge was shown, a row of `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PairReport {
    /// The step that could learn from it.
    pub step: usize,
    /// Updates of the policy that drew its responses.
    pub policy_step: usize,
    /// The prompt as text.
    pub prompt: String,
    /// One response.
    pub response_1: String,
    /// The other one.
    pub response_2: String,
    /// The judgement; `None` for equal responses, which nobody was asked about.
    #[serde(flatten)]
    pub judgement: Option<JudgementReport>,
    /// Why it has no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Which response was learnt from as the chosen one, 1 or 2; `None` where the pair was not learnt from.
    pub chosen: Option<u8>,
}

/// A response that the judge rated by itself, a row of `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatingReport {
    /// The step that could learn from it.
    pub step: usize,
    /// Updates of the policy that drew it.
    pub policy_step: usize,
    /// The prompt as text.
    pub prompt: String,
    /// The response.
    pub response: String,
    /// How good it is; `None` where the judge's answer is unusable.
    pub score: Option<f32>,
    /// Its advantage over the others.
    pub advantage: f64,
    /// Why it has no score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// A judgement in `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgementReport {
    /// Probability that `response_1` is preferred; `None` where the verdict is invalid.
    pub p_first: Option<f32>,
    /// The same, when it was shown first; `None` if that was not asked.
    pub p_12: Option<f32>,
    /// The same, when it was shown second; `None` if that was not asked.
    pub p_21: Option<f32>,
    /// "1", "2", "tie" or "invalid".
    pub verdict: String,
    /// Of an ensemble, each member's probability that `response_1` is preferred, or why its verdict is unusable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Verdict>,
}

impl JudgementReport {
    /// See [`Judgement::order_flip`](crate::judge::Judgement::order_flip).
    pub(crate) fn order_flip(&self) -> bool {
        orders_disagree(self.p_12, self.p_21)
    }
}

impl PairReport {
    /// With what became of it.
    pub(super) fn judged(self, outcome: &PairOutcome) -> PairReport {
        let PairOutcome::Judged(judgement) = outcome else {
            return PairReport { skipped: Some("identical responses".into()), ..self };
        };
        let skipped = match &judgement.verdict {
            Verdict::Invalid { why } => Some(why.clone()),
            _ => None,
        };
        let judgement = JudgementReport {
            p_first: judgement.verdict.p_first(),
            p_12: judgement.p_12,
            p_21: judgement.p_21,
            verdict: judgement.verdict.label().to_owned(),
            votes: judgement.votes.clone(),
        };
        PairReport { judgement: Some(judgement), skipped, ..self }
    }
}
