//! The charts of training runs: the metric of each, its title, label and unit. The page of a run and the page that compares
//! runs draw the same charts.

use super::plot::{Plot, Series};
use super::run::{Kind, Run};
use super::scale::Unit;

/// A chart over the steps.
#[derive(Debug, PartialEq)]
pub(super) struct Chart {
    /// The key in `metrics.jsonl`.
    pub(super) metric: &'static str,
    pub(super) title: &'static str,
    label: &'static str,
    unit: Unit,
    base: Base,
    /// Whether the curve goes through the values rather than being their running mean.
    exact: bool,
}

/// What the y axis covers in any case.
#[derive(Debug, PartialEq)]
enum Base {
    Nothing,
    Zero,
    /// A marked height, such as chance or no change.
    Level(f64),
}

impl Chart {
    const fn new(metric: &'static str, title: &'static str, label: &'static str) -> Chart {
        Chart { metric, title, label, unit: Unit::Plain, base: Base::Nothing, exact: false }
    }

    const fn share(self) -> Chart {
        Chart { unit: Unit::Share, ..self }
    }

    const fn starting_at_zero(self) -> Chart {
        Chart { base: Base::Zero, ..self }
    }

    const fn level(self, y: f64) -> Chart {
        Chart { base: Base::Level(y), ..self }
    }

    const fn exact(self) -> Chart {
        Chart { exact: true, ..self }
    }

    /// The plot without a curve, over the steps to `last`.
    pub(super) fn plot(&self, last: f64) -> Plot {
        let plot = Plot::new(self.title).labels("step", self.label).over(0.0, last).unit(self.unit);
        match self.base {
            Base::Nothing => plot,
            Base::Zero => plot.from_zero(),
            Base::Level(y) => plot.level(y),
        }
    }

    /// The curve of `run`.
    pub(super) fn curve(&self, run: &Run, name: &str) -> Series {
        let mut values = run.evaluated(self.metric).peekable();
        if !self.exact {
            return Series::noisy(name, values);
        }
        let start = values.peek().and_then(|_| run.before_training(self.metric));
        Series::line(name, start.map(|value| (0.0, value)).into_iter().chain(values))
    }
}

pub(super) const WIN_RATE: Chart =
    Chart::new("eval/win_rate", "Win rate against the starting model", "on held-out prompts")
        .share()
        .level(0.5)
        .exact();
pub(super) const HELD_OUT_LENGTH: Chart =
    Chart::new("eval/mean_length", "Length on held-out prompts", "tokens of a response, mean")
        .starting_at_zero()
        .exact();
/// The starting model is the reference model too, unless that follows the policy.
pub(super) const HELD_OUT_KL: Chart =
    Chart::new("eval/kl", "KL to the starting model", "on held-out prompts: mean of a response, nats")
        .level(0.0)
        .exact();
pub(super) const HELD_OUT_LOSS: Chart =
    Chart::new("eval/loss", "Loss on held-out pairs", "mean over the pairs").exact();
pub(super) const HELD_OUT_ACCURACY: Chart = Chart::new(
    "eval/rewards/accuracies",
    "Reward accuracy on held-out pairs",
    "share of the pairs with a margin above 0",
)
.share()
.level(0.5)
.exact();
pub(super) const HELD_OUT_MARGIN: Chart = Chart::new(
    "eval/rewards/margins",
    "Reward margin on held-out pairs",
    "chosen minus rejected, mean over the pairs",
)
.level(0.0)
.exact();

pub(super) const SCORE: Chart = Chart::new("reward", "Score", "of a response, mean");
pub(super) const SCORE_SPREAD: Chart =
    Chart::new("reward_std", "Spread of the scores", "standard deviation").starting_at_zero();
pub(super) const EQUAL_SCORES: Chart = Chart::new(
    "frac_reward_zero_std",
    "Equal scores",
    "share of the prompts whose responses all score the same",
)
.share()
.starting_at_zero();
pub(super) const PAIR_LOSS: Chart = Chart::new("loss", "Loss", "mean over the pairs");
pub(super) const TOKEN_LOSS: Chart = Chart::new("loss", "Loss", "nats per token");
pub(super) const MARGIN: Chart =
    Chart::new("rewards/margins", "Reward margin", "chosen minus rejected, mean over the pairs").level(0.0);
pub(super) const ACCURACY: Chart =
    Chart::new("rewards/accuracies", "Reward accuracy", "share of the pairs with a margin above 0")
        .share()
        .level(0.5);
/// Of chosen and of rejected responses, as all charts whose metric has these two parts.
pub(super) const REWARDS: Chart = Chart::new("rewards", "Rewards", "β (log π − log π₀) of a response, mean");
pub(super) const REWARD_SCORES: Chart = Chart::new("rewards", "Rewards", "score of a response, mean");
pub(super) const LOG_PROBABILITIES: Chart =
    Chart::new("logps", "Log-probabilities", "log π of a response, mean, nats");
pub(super) const KL: Chart =
    Chart::new("objective/kl", "KL to the reference model", "mean of log π − log π₀ of a response, nats")
        .level(0.0);
pub(super) const MOVING_KL: Chart = Chart { title: "KL to the moving reference model", ..KL };
pub(super) const LOG_RATIO: Chart =
    Chart { title: "Log-ratio", label: "mean of log π − log π₀ over both responses, nats", ..KL };
pub(super) const ENTROPY: Chart = Chart::new("objective/entropy", "Entropy", "of the next token, nats");

pub(super) const LENGTH: Chart =
    Chart::new("completions/mean_length", "Length of the responses", "tokens, mean").starting_at_zero();
pub(super) const ENDED: Chart =
    Chart::new("val/contain_eos_token", "Ended by themselves", "share of the responses")
        .share()
        .starting_at_zero();

pub(super) const ORDER_FLIPS: Chart =
    Chart::new("judge/order_flip", "Order flips", "share of the pairs judged in both orders")
        .share()
        .starting_at_zero();
pub(super) const FIRST_PREFERRED: Chart =
    Chart::new("judge/first", "Response 1 preferred", "share of the pairs with a preference")
        .share()
        .level(0.5);
pub(super) const CERTAINTY: Chart =
    Chart::new("objective/scores", "Certainty", "judge's probability for the chosen response").level(0.5);

pub(super) const LEARNING_RATE: Chart =
    Chart::new("learning_rate", "Learning rate", "").starting_at_zero().exact();
pub(super) const GRADIENT_NORM: Chart =
    Chart::new("grad_norm", "Gradient norm", "before clipping").starting_at_zero();
/// In seconds.
pub(super) const STEP_TIME: Chart =
    Chart::new("time/step_ms", "Time of a step", "seconds").starting_at_zero();
pub(super) const SPEED: Chart =
    Chart::new("time/tokens_per_second", "Speed", "tokens per second, sampled and trained on")
        .starting_at_zero();

impl Run {
    /// The chart of the loss. A policy gradient has none: its loss is around 0 at any score.
    pub(super) fn loss_chart(&self) -> Option<&'static Chart> {
        match self.kind() {
            _ if self.learns_from_scores() => None,
            Kind::Sft => Some(&TOKEN_LOSS),
            Kind::Align | Kind::Dpo | Kind::Reward => Some(&PAIR_LOSS),
        }
    }

    /// The chart of `objective/kl`. In offline training, the responses are not the policy's own.
    pub(super) fn kl_chart(&self) -> &'static Chart {
        match self.kind() {
            Kind::Align if self.moves_reference() => &MOVING_KL,
            Kind::Align => &KL,
            Kind::Dpo | Kind::Reward | Kind::Sft => &LOG_RATIO,
        }
    }
}
