//! The report of a step. Serialized, it is a row of `metrics.jsonl`. Names are those of TRL where it has the metric.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::eval::ensemble::VotesReport;
use crate::judge::queue::Usage;
use crate::judge::{PairOutcome, Verdict, orders_disagree};

/// The report of a training step. Fields marked `serde(skip)` are not written to `metrics.jsonl`.
///
/// Parts that do not apply to a kind of training are `None` and have no keys. Padding is never counted in sums and
/// means.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct StepReport {
    /// The number of the step, from 1.
    pub step: usize,
    /// The number of steps of the run.
    #[serde(skip)]
    pub total_steps: usize,
    /// The loss of the step. With preference pairs and in `reward`: mean over the pairs learnt from. In `sft`: negative
    /// log-likelihood in nats, mean over the completion tokens. With a policy gradient: sum over the response tokens,
    /// weighted as `token-weights` says. `null` if the step had nothing to learn from.
    pub loss: Option<f64>,
    /// The update of the weights; `None` for a step without an update.
    #[serde(flatten)]
    pub update: Option<UpdateReport>,
    /// The rewards of the pairs learnt from.
    #[serde(flatten)]
    pub preference: Option<PreferenceReport>,
    /// The scores that a policy gradient is computed from.
    #[serde(flatten)]
    pub gradient: Option<PolicyGradientReport>,
    /// The log-probabilities of the responses learnt from.
    #[serde(flatten)]
    pub policy: Option<PolicyReport>,
    /// Entropy of the policy's next-token distribution in nats. In `sft` and with a policy gradient: mean over the
    /// response tokens. With preference pairs: mean over the tokens of both responses, then over the pairs.
    #[serde(rename = "objective/entropy", skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// The responses of the step, sampled or given.
    #[serde(flatten)]
    pub responses: ResponseReport,
    /// The verdicts of the judge.
    #[serde(flatten)]
    pub judging: Option<JudgeReport>,
    /// The evaluation on held-out prompts, if one was due after the step.
    #[serde(flatten)]
    pub evaluation: Option<EvaluationReport>,
    /// The evaluation on held-out pairs, if one was due after the step.
    #[serde(flatten)]
    pub held_out: Option<HeldOutReport>,
    /// Passes over the dataset made so far, a fraction.
    pub epoch: f64,
    /// Tokens processed since the start of the run: sampled tokens, and tokens of the training pass (prompts included;
    /// a prompt shared by several responses counts once).
    pub num_tokens: u64,
    /// The number of steps since the start of the run whose loss or gradient was not finite. They changed no weight.
    pub non_finite_steps: usize,
    /// Durations.
    #[serde(flatten)]
    pub times: Times,
    /// The work of each rank, in a distributed run.
    #[serde(flatten)]
    pub ranks: Option<RanksReport>,
    /// GPU memory allocated by oaif at the end of the step, in bytes.
    #[serde(rename = "memory/device_bytes")]
    pub device_bytes: u64,
    /// All pairs of the step, the rows of `pairs.jsonl`.
    #[serde(skip)]
    pub pairs: Vec<PairReport>,
    /// All responses rated one by one, also rows of `pairs.jsonl`.
    #[serde(skip)]
    pub ratings: Vec<RatingReport>,
    /// Warnings about the run as a whole. The observer has received them already.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// Estimated seconds until the end of the run. `None` after the first step, which includes the compilation of the
    /// kernels and is not representative.
    #[serde(skip)]
    pub seconds_left: Option<f64>,
}

impl StepReport {
    /// The mean reward margin between chosen and rejected responses; `None` without pairs.
    pub fn margin(&self) -> Option<f64> {
        self.preference.map(|preference| preference.margins)
    }

    /// The share of the pairs with a preference in which the judge preferred the first response; `None` without a judge
    /// or without such a pair.
    pub fn first_preferred(&self) -> Option<f64> {
        self.judging.as_ref()?.first
    }

    /// Whether the step had something to learn from: a loss, and a gradient that is not zero (or a loss of exactly 0).
    pub(super) fn taught(&self) -> bool {
        match (self.loss, self.update) {
            (None, _) | (_, None) => false,
            (Some(loss), Some(update)) => loss == 0.0 || update.grad_norm != Some(0.0),
        }
    }
}

/// The work of the ranks in a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RanksReport {
    /// For each rank, the wall-clock time of the step in milliseconds without communication and waiting for other
    /// ranks.
    #[serde(rename = "ranks/busy_ms")]
    pub busy_ms: Vec<f64>,
    /// The rank with the largest `ranks/busy_ms`.
    #[serde(rename = "ranks/slowest")]
    pub slowest: usize,
    /// Bytes that rank 0 sent to other ranks during the step.
    #[serde(rename = "ranks/sent_bytes")]
    pub sent_bytes: u64,
}

impl RanksReport {
    /// Creates the report from the busy times of the ranks.
    pub(super) fn new(busy_ms: Vec<f64>, sent_bytes: u64) -> RanksReport {
        let slowest =
            (0..busy_ms.len()).max_by(|a, b| busy_ms[*a].total_cmp(&busy_ms[*b])).unwrap_or_default();
        RanksReport { busy_ms: busy_ms.into_iter().map(hundredths).collect(), slowest, sent_bytes }
    }
}

/// The update of the weights in a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct UpdateReport {
    /// L2 norm of the gradient over all trained weights, before clipping. `null` if it is not finite; then no weight
    /// was changed.
    pub grad_norm: Option<f32>,
    /// The learning rate of the step.
    pub learning_rate: f64,
}

/// Rewards of the pairs learnt from. The reward of a response is β (log π − log π₀), summed over its tokens. For losses
/// without a reference model it is β times the score that the loss compares, and in the training of a reward model it
/// is the model's score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PreferenceReport {
    /// Reward of the chosen response, mean over the pairs.
    #[serde(rename = "rewards/chosen")]
    pub chosen: f64,
    /// Reward of the rejected response, mean over the pairs.
    #[serde(rename = "rewards/rejected")]
    pub rejected: f64,
    /// Share of the pairs whose chosen response has the higher reward.
    #[serde(rename = "rewards/accuracies")]
    pub accuracies: f64,
    /// Reward of the chosen response minus that of the rejected one, mean over the pairs.
    #[serde(rename = "rewards/margins")]
    pub margins: f64,
}

/// Log-probabilities of the responses learnt from. With `ld-alpha`, tokens are weighted as in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PolicyReport {
    /// Log-probability of the chosen response in nats, summed over its tokens, mean over the pairs. Absent without
    /// pairs.
    #[serde(rename = "logps/chosen", skip_serializing_if = "Option::is_none")]
    pub logps_chosen: Option<f64>,
    /// Log-probability of the rejected response in nats, summed over its tokens, mean over the pairs. Absent without
    /// pairs.
    #[serde(rename = "logps/rejected", skip_serializing_if = "Option::is_none")]
    pub logps_rejected: Option<f64>,
    /// log π − log π₀ of a response in nats, summed over its tokens, mean over all responses learnt from. For responses
    /// sampled from π, this estimates the KL divergence from the reference model.
    #[serde(rename = "objective/kl")]
    pub kl: f64,
    /// β of the loss.
    pub beta: f64,
}

/// The scores that a policy gradient is computed from. Names are those of TRL's GRPO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PolicyGradientReport {
    /// The judge's score of a response before any KL penalty, mean over the step's responses with a usable score; 0 if
    /// there is none.
    pub reward: f64,
    /// Standard deviation of the scores over the step's responses (with n − 1).
    pub reward_std: f64,
    /// Share of the prompts whose responses all have the same score, prompts with fewer than two usable scores included.
    pub frac_reward_zero_std: f64,
    /// Share of the response tokens whose probability ratio was clipped.
    #[serde(rename = "clip_ratio/region_mean")]
    pub clip_ratio: f64,
}

/// The responses of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ResponseReport {
    /// Length of a sampled response in tokens, the end-of-sequence token included, mean over the step's responses.
    /// Absent if responses are given.
    #[serde(rename = "completions/mean_length", skip_serializing_if = "Option::is_none")]
    pub mean_length: Option<f64>,
    /// Share of the step's responses that end with the end-of-sequence token or, if they are sampled, with a stop
    /// string.
    #[serde(rename = "val/contain_eos_token", skip_serializing_if = "Option::is_none", default)]
    pub contain_eos_token: Option<f64>,
}

/// The verdicts of the judge in a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JudgeReport {
    /// Pairs of the step that the judge compared. If it rates responses one by one: responses rated.
    #[serde(rename = "judge/judged")]
    pub judged: usize,
    /// Share of the step's pairs with a preference in which the first response won. `null` without such a pair.
    #[serde(rename = "judge/first")]
    pub first: Option<f64>,
    /// Pairs of the step without a preference.
    #[serde(rename = "judge/tie")]
    pub tie: usize,
    /// Pairs of the step without a usable verdict. If the judge rates responses one by one: responses without a usable
    /// score.
    #[serde(rename = "judge/invalid")]
    pub invalid: usize,
    /// Pairs of equal responses in the step, which are not judged. If the judge rates responses one by one: responses
    /// equal to another one to the same prompt.
    #[serde(rename = "judge/identical")]
    pub identical: usize,
    /// Pairs of the step that were shown in both orders.
    #[serde(rename = "judge/both_orders")]
    pub both_orders: usize,
    /// Pairs of these in which the two orders preferred different responses (order flips).
    #[serde(rename = "judge/order_flip")]
    pub order_flip: usize,
    /// Share of the pairs with a preference in which the longer response (in characters) won, since the start of the
    /// run. `null` if lengths never differed.
    #[serde(rename = "judge/longer")]
    pub longer: Option<f64>,
    /// Pairs of the step whose probability for the chosen response is below `min-confidence`. They are not learnt from.
    #[serde(rename = "judge/unsure")]
    pub unsure: usize,
    /// Pairs of the step that were learnt from. With a policy gradient: responses whose advantage is not zero.
    #[serde(rename = "judge/learnt")]
    pub learnt: usize,
    /// Wall-clock time of the judge in milliseconds, mean over the step's judged pairs (or rated responses).
    #[serde(rename = "judge/latency_ms")]
    pub latency_ms: f64,
    /// Number of updates between the policy that sampled the responses and the policy that learns from them; 0 is
    /// on-policy.
    #[serde(rename = "judge/off_policy_steps")]
    pub off_policy_steps: usize,
    /// The judge's probability that the chosen response is better, mean over the pairs learnt from. If the judge rates
    /// responses one by one: the rating, mean over the responses with a usable one. `null` otherwise.
    #[serde(rename = "objective/scores")]
    pub scores: Option<f64>,
    /// 2p − 1 of this probability p, mean over the pairs learnt from. `null` for ratings.
    #[serde(rename = "objective/scores_margin")]
    pub scores_margin: Option<f64>,
    /// The agreement of an ensemble's members since the start of the run; `None` for other judges.
    #[serde(flatten)]
    pub votes: Option<VotesReport>,
    /// Requests, tokens and cost since the start of the run; `None` for judges that do not count them.
    #[serde(flatten)]
    pub used: Option<UsageReport>,
}

/// Evaluation on held-out prompts: the judge of the run compares the responses of the current policy with those of the
/// starting model, in both orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct EvaluationReport {
    /// Win rate against the starting model: (wins + ties / 2) / prompts with a usable verdict.
    #[serde(rename = "eval/win_rate")]
    pub win_rate: f64,
    /// Lower end of the 95 % Wilson interval of the win rate.
    #[serde(rename = "eval/win_rate_low")]
    pub win_rate_low: f64,
    /// Upper end of the 95 % Wilson interval of the win rate.
    #[serde(rename = "eval/win_rate_high")]
    pub win_rate_high: f64,
    /// Number of held-out prompts with a usable verdict.
    #[serde(rename = "eval/prompts")]
    pub prompts: usize,
    /// Number of ties among these prompts.
    #[serde(rename = "eval/ties")]
    pub ties: usize,
    /// Length of the policy's responses in tokens, mean over all held-out prompts.
    #[serde(rename = "eval/mean_length")]
    pub mean_length: f64,
    /// Mean length of the starting model's responses in tokens.
    #[serde(rename = "eval/starting_length")]
    pub starting_length: f64,
    /// log π minus the log-probability under the starting model, in nats, summed over the tokens of the policy's
    /// response, mean over all held-out prompts. This estimates the KL divergence from the starting model.
    #[serde(rename = "eval/kl")]
    pub kl: f64,
}

/// Evaluation on held-out pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct HeldOutReport {
    /// The loss, mean over the held-out pairs.
    #[serde(rename = "eval/loss")]
    pub loss: f64,
    /// Share of the held-out pairs whose chosen response has the higher reward.
    #[serde(rename = "eval/rewards/accuracies")]
    pub accuracies: f64,
    /// Reward of the chosen response minus that of the rejected one, mean over the held-out pairs.
    #[serde(rename = "eval/rewards/margins")]
    pub margins: f64,
    /// Number of held-out pairs evaluated.
    #[serde(rename = "eval/pairs")]
    pub pairs: usize,
}

/// What the judge consumed since the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct UsageReport {
    /// Requests sent to the judge since the start of the run.
    #[serde(rename = "judge/requests")]
    pub requests: u64,
    /// Requests of these that failed and were sent again.
    #[serde(rename = "judge/failed_requests")]
    pub failed: u64,
    /// Judgements that came from a cache instead of a request, since the start of the run.
    #[serde(rename = "judge/cached")]
    pub cached: u64,
    /// Tokens read and written by the judge since the start of the run.
    #[serde(rename = "judge/tokens")]
    pub tokens: u64,
    /// Cost of the judge since the start of the run, in the unit of the configured prices.
    #[serde(rename = "judge/cost")]
    pub cost: f64,
}

impl UsageReport {
    /// Returns `None` for a judge that counts nothing.
    pub(super) fn of(used: Usage) -> Option<UsageReport> {
        let Usage { requests, failed, cached, prompt_tokens, completion_tokens, cost } = used;
        let tokens = prompt_tokens + completion_tokens;
        (used != Usage::default()).then_some(UsageReport { requests, failed, cached, tokens, cost })
    }
}

/// Durations in a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// Wall-clock time of the step in milliseconds, without evaluation and checkpoints.
    #[serde(rename = "time/step_ms")]
    pub step_ms: f64,
    /// Tokens of the step (those added to `num_tokens`) divided by its wall-clock time in seconds.
    #[serde(rename = "time/tokens_per_second")]
    pub tokens_per_second: f64,
    /// The phases of the step.
    #[serde(flatten)]
    pub phases: Phases,
}

/// The phases of a step, in the order in which they start.
pub const PHASES: [&str; 7] =
    ["sampling", "judging", "reference", "forward", "backward", "exchange", "update"];

/// Milliseconds by phase: "sampling", "judging", "reference" (log-probabilities before the update), "forward",
/// "backward", "exchange" (gradients between ranks), "update". `forward` and `backward` are GPU time, absent if the GPU
/// has no timestamps; the others are wall-clock time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phases(Vec<(&'static str, f64)>);

impl Phases {
    /// Adds to the time of a phase.
    pub(super) fn add(&mut self, phase: &'static str, ms: f64) {
        assert!(PHASES.contains(&phase), "{phase} is not a phase of a step");
        match self.0.iter_mut().find(|(name, _)| *name == phase) {
            Some((_, sum)) => *sum += ms,
            None => self.0.push((phase, ms)),
        }
    }

    /// The milliseconds of a phase; 0 if the step did not have it.
    pub fn ms(&self, phase: &str) -> f64 {
        self.0.iter().find(|(name, _)| *name == phase).map_or(0.0, |(_, ms)| *ms)
    }

    /// All phases, in the order in which they started.
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

/// Rounds to the precision of the clocks.
pub(super) fn hundredths(ms: f64) -> f64 {
    (ms * 1e2).round() / 1e2
}

/// A pair of responses, a row of `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PairReport {
    /// The step to which the pair belongs.
    pub step: usize,
    /// The number of updates of the policy that sampled the responses.
    pub policy_step: usize,
    /// The prompt as text.
    pub prompt: String,
    /// The first response.
    pub response_1: String,
    /// The second response.
    pub response_2: String,
    /// The judgement; `None` for equal responses, which are not judged.
    #[serde(flatten)]
    pub judgement: Option<JudgementReport>,
    /// Why there is no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The response learnt from as the chosen one, 1 or 2; `None` if the pair was not learnt from.
    pub chosen: Option<u8>,
}

/// A response that the judge rated by itself, a row of `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatingReport {
    /// The step to which the response belongs.
    pub step: usize,
    /// The number of updates of the policy that sampled the response.
    pub policy_step: usize,
    /// The prompt as text.
    pub prompt: String,
    /// The response.
    pub response: String,
    /// The judge's score; `None` if it is not usable.
    pub score: Option<f32>,
    /// Its advantage over the other responses to the prompt.
    pub advantage: f64,
    /// Why there is no score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// A judgement in `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgementReport {
    /// Probability that `response_1` is preferred; `None` if the verdict is not usable.
    pub p_first: Option<f32>,
    /// The same when `response_1` was shown first; `None` if this order was not judged.
    pub p_12: Option<f32>,
    /// The same when `response_1` was shown second; `None` if this order was not judged.
    pub p_21: Option<f32>,
    /// "1", "2", "tie" or "invalid".
    pub verdict: String,
    /// For an ensemble, the verdict of each member.
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
    /// Adds the outcome.
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
