//! The result of a run: a sentence, and the key figures.

use super::charts;
use super::page::{KeyFigure, Report};
use super::run::{Kind, Run};
use super::scale::{Estimate, Unit, alike, minus, number};
use crate::numbers::decimals;

/// Lengths that differ by less than this share are called equal.
const SAME_LENGTH: f64 = 0.01;
/// From this factor on, a length is written as "2.5 times as long" instead of in per cent.
const MUCH_LONGER: f64 = 2.0;

/// The last win rate of a run on held-out prompts.
pub(super) struct WinRate {
    pub(super) step: f64,
    pub(super) rate: Estimate,
    pub(super) prompts: f64,
}

/// A value and the earlier value that it is compared with.
pub(super) struct Change {
    pub(super) last: f64,
    /// The value of the starting model or of the first steps; `None` for a run of one step.
    pub(super) first: Option<f64>,
    /// Whether it was measured on held-out rows.
    pub(super) held_out: bool,
}

/// The change of a mean length in words, such as "26 % longer"; `None` if the lengths cannot be compared.
pub fn length_change(before: f64, after: f64) -> Option<String> {
    length_compared(before, after, None)
}

/// The same with the object of the comparison, if `with` names it: "26 % longer than in the first steps".
fn length_compared(before: f64, after: f64, with: Option<&str>) -> Option<String> {
    let factor = after / before;
    let [as_with, than_with] =
        ["as", "than"].map(|word| with.map_or(String::new(), |with| format!(" {word} {with}")));
    match factor {
        _ if !factor.is_finite() || factor <= 0.0 => None,
        _ if (factor - 1.0).abs() < SAME_LENGTH => {
            Some(if with.is_some() { format!("as long{as_with}") } else { "equally long".into() })
        }
        _ if factor >= MUCH_LONGER => Some(format!("{factor:.1} times as long{as_with}")),
        _ if factor > 1.0 => Some(format!("{:.0} % longer{than_with}", 100.0 * (factor - 1.0))),
        _ => Some(format!("{:.0} % shorter{than_with}", 100.0 * (1.0 - factor))),
    }
}

/// A KL divergence in words: "2.4 nats away (KL)".
fn distance(kl: f64, from: &str) -> String {
    let digits = if kl.abs() < 0.1 { 3 } else { 1 };
    format!("{} nats away{from} (KL)", minus(decimals(kl, digits)))
}

/// A win rate with its interval: "92 % (95 % interval 88 to 95)".
pub fn rate_in_words(rate: Estimate) -> String {
    let [value, low, high] = [rate.value, rate.low, rate.high].map(|share| format!("{:.0}", 100.0 * share));
    format!("{value} % (95 % interval {low} to {high})")
}

/// A second sentence, for a win rate whose interval contains 50 %; otherwise empty.
pub fn unclear(rate: Estimate) -> &'static str {
    match rate.low <= 0.5 && rate.high >= 0.5 {
        true => " The interval contains 50 %: this is no clear change.",
        false => "",
    }
}

impl Run {
    /// Steps done.
    pub(super) fn done(&self) -> f64 {
        self.metrics.last("step").unwrap_or(0.0)
    }

    /// The number of steps done and of all steps, if the run is not finished.
    pub(super) fn unfinished(&self) -> Option<(f64, f64)> {
        let done = self.done();
        self.config["total_steps"].as_f64().filter(|total| *total > done).map(|total| (done, total))
    }

    /// The value and the step of the last evaluation.
    pub(super) fn win_rate(&self) -> Option<WinRate> {
        let m = &self.metrics;
        let (step, value) = self.evaluated("eval/win_rate").last()?;
        let rate = Estimate::new(value, m.last("eval/win_rate_low")?, m.last("eval/win_rate_high")?);
        Some(WinRate { step, rate, prompts: m.last("eval/prompts")? })
    }

    /// The means of a metric over the last and the first tenth of the steps.
    pub(super) fn change(&self, metric: &str) -> Option<Change> {
        let (first, last) = self.metrics.ends(metric)?;
        Some(Change { last, first: (self.metrics.steps.len() > 1).then_some(first), held_out: false })
    }

    /// The mean length of the policy's responses in tokens.
    pub(super) fn length(&self) -> Option<Change> {
        let held_out = self.metrics.last("eval/mean_length").zip(self.metrics.last("eval/starting_length"));
        match held_out {
            Some((last, first)) => Some(Change { last, first: Some(first), held_out: true }),
            None => self.change("completions/mean_length"),
        }
    }

    /// The KL divergence of the policy from the reference model, if the policy sampled the responses.
    pub(super) fn distance(&self) -> Option<Change> {
        if self.kind() != Kind::Align {
            return None;
        }
        match self.metrics.last("eval/kl") {
            Some(last) => Some(Change { last, first: None, held_out: true }),
            None => self.change("objective/kl"),
        }
    }

    /// The share of preference pairs in which the chosen response has the higher reward.
    pub(super) fn accuracy(&self) -> Option<Change> {
        match self.metrics.last("eval/rewards/accuracies") {
            Some(last) => Some(Change { last, first: None, held_out: true }),
            None => self.change("rewards/accuracies"),
        }
    }

    /// The loss, on held-out pairs if the run has any.
    pub(super) fn loss_change(&self) -> Option<Change> {
        match self.metrics.last("eval/loss") {
            Some(last) => Some(Change { last, first: None, held_out: true }),
            None => self.change("loss"),
        }
    }

    /// The result in one or two sentences.
    pub(crate) fn sentence(&self) -> String {
        let done = self.done();
        if done == 0.0 {
            return "No step is done yet.".into();
        }
        let after = |step: f64| match step {
            1.0 => "After 1 step".to_owned(),
            _ => format!("After {} steps", number(step)),
        };
        match self.kind() {
            Kind::Align => match self.win_rate() {
                Some(win) => format!(
                    "{} the policy wins {} of {} held-out prompts against the starting model{}.{}{}",
                    after(win.step),
                    rate_in_words(win.rate),
                    number(win.prompts),
                    self.responses_are("")
                        .map_or(String::new(), |text| format!("; its responses are {text}")),
                    unclear(win.rate),
                    self.score_in_words().map_or(String::new(), |text| format!(" {text}.")),
                ),
                None => {
                    let from = match self.moves_reference() {
                        true => " from the moving reference model",
                        false => " from the reference model",
                    };
                    let known = self
                        .responses_are(from)
                        .map(|text| format!("{} the policy's responses are {text}", after(done)));
                    let measured = match self.is_demo() {
                        true => "",
                        false => " No win rate was measured: use --eval-dataset FILE to measure one.",
                    };
                    let sentences = [known, self.score_in_words(), self.accuracy_in_words()];
                    let sentences: Vec<String> = sentences.into_iter().flatten().collect();
                    let text = match sentences.is_empty() {
                        true => format!("{} nothing was measured", after(done)),
                        false => sentences.join(". "),
                    };
                    format!("{text}.{measured}")
                }
            },
            Kind::Sft => {
                let loss = self.change("loss").map(|change| value_with_first(&change, " nats per token"));
                format!("{} the loss is {}.", after(done), loss.unwrap_or_else(|| "unknown".into()))
            }
            kind @ (Kind::Dpo | Kind::Reward) => {
                let who = match kind {
                    Kind::Dpo => "the policy gives the chosen response the higher reward",
                    _ => "the model gives the chosen response the higher score",
                };
                let loss = self.loss_change().map(|change| value_with_first(&change, ""));
                let loss = loss.map(|loss| format!("the loss is {loss}"));
                match self.accuracy() {
                    Some(Change { last, held_out: true, .. }) => format!(
                        "{} {who} in {:.0} % of {} held-out pairs{}.",
                        after(self.last_step_of("eval/loss").unwrap_or(done)),
                        100.0 * last,
                        number(self.metrics.last("eval/pairs").unwrap_or(f64::NAN)),
                        loss.map_or(String::new(), |loss| format!("; {loss}"))
                    ),
                    accuracy => {
                        let accuracy = accuracy.map(|change| {
                            format!(
                                "{who} in {} of the pairs that it is trained on",
                                share_with_first(&change)
                            )
                        });
                        let parts: Vec<String> = accuracy.into_iter().chain(loss).collect();
                        format!(
                            "{} {}. Use --eval-dataset FILE to measure both on held-out pairs.",
                            after(done),
                            parts.join("; ")
                        )
                    }
                }
            }
        }
    }

    fn last_step_of(&self, metric: &str) -> Option<f64> {
        self.evaluated(metric).last().map(|(step, _)| step)
    }

    /// "26 % longer and 2.4 nats away (KL)".
    fn responses_are(&self, from: &str) -> Option<String> {
        let length = self.length().and_then(|change| {
            let with = (!change.held_out).then_some("in the first steps");
            length_compared(change.first?, change.last, with)
        });
        let kl = self.distance().map(|change| distance(change.last, from));
        let parts: Vec<String> = length.into_iter().chain(kl).collect();
        (!parts.is_empty()).then(|| parts.join(" and "))
    }

    fn score_in_words(&self) -> Option<String> {
        let score = self.change("reward")?;
        Some(format!("The mean score of a response is {}", value_with_first(&score, "")))
    }

    fn accuracy_in_words(&self) -> Option<String> {
        let accuracy = self.change("rewards/accuracies")?;
        Some(format!(
            "The policy gives the chosen response the higher reward in {} of the judged pairs",
            share_with_first(&accuracy)
        ))
    }

    pub(super) fn key_figures(&self, report: &mut Report) {
        let (share, kind) = (Unit::Share, self.kind());
        let in_first = |text: String| format!("{text} in the first steps");
        let plain = |label: &str, change: &Change, unit: &str, before: &dyn Fn(String) -> String| {
            let [last, first] = alike([change.last, change.first.unwrap_or(f64::NAN)]);
            let figure = KeyFigure::new(label, format!("{last}{unit}"));
            match change.first {
                Some(_) => figure.note(before(format!("{first}{unit}"))),
                None if change.held_out => figure.note("on held-out rows"),
                None => figure,
            }
        };
        let shares = |label: &str, change: &Change| {
            let figure = KeyFigure::new(label, share.format(change.last));
            match change.first {
                Some(first) => figure.note(in_first(share.format(first))),
                None if change.held_out => figure.note("on held-out pairs"),
                None => figure,
            }
        };
        let mut small = Vec::new();
        if let Some(WinRate { rate, .. }) = self.win_rate() {
            let note = format!("95 % interval {}", rate.interval(share));
            report.figure(KeyFigure::new("Win rate", share.format(rate.value)).note(note).main());
        }
        if kind == Kind::Align {
            if let Some(length) = self.length() {
                let before = |text: String| match length.held_out {
                    true => format!("{text} of the starting model"),
                    false => in_first(text),
                };
                report.figure(plain("Length of a response", &length, " tokens", &before).main());
            }
            if let Some(kl) = self.distance() {
                let figure = match kl.held_out {
                    true => {
                        KeyFigure::new(charts::HELD_OUT_KL.title, format!("{} nats", alike([kl.last])[0]))
                            .note("on held-out prompts")
                    }
                    false => plain(self.kl_chart().title, &kl, " nats", &in_first),
                };
                report.figure(figure.main());
            }
        }
        let (name, label) = if self.learns_from_scores() { ("reward", "Score") } else { ("loss", "Loss") };
        let loss = match kind {
            Kind::Align => self.change(name),
            _ => self.loss_change(),
        };
        let unit = if kind == Kind::Sft { " nats" } else { "" };
        let loss = loss.map(|change| plain(label, &change, unit, &in_first));
        let accuracy = match kind {
            Kind::Align => self.change("rewards/accuracies"),
            _ => self.accuracy(),
        };
        let accuracy = accuracy.map(|change| shares("Reward accuracy", &change));
        match kind {
            Kind::Align => small.extend(loss.into_iter().chain(accuracy)),
            _ => {
                for figure in accuracy.into_iter().chain(loss) {
                    report.figure(figure.main());
                }
            }
        }
        if let Some(change) = self.change("rewards/margins") {
            small.push(plain("Reward margin", &change, "", &in_first));
        }
        if kind == Kind::Dpo
            && let Some(change) = self.change("objective/kl")
        {
            small.push(plain(self.kl_chart().title, &change, " nats", &in_first));
        }
        if kind == Kind::Align
            && let Some(change) = self.change("val/contain_eos_token")
        {
            small.push(shares("Ended by themselves", &change));
        }
        if self.pairs.both_orders > 0 {
            let rate = Estimate::share(self.pairs.flipped, self.pairs.both_orders);
            let figure = KeyFigure::new("Order flips", share.format(rate.value));
            small.push(figure.note(format!("of {} pairs", number(self.pairs.both_orders as f64))));
        }
        for figure in small {
            report.figure(figure);
        }
    }
}

/// A value with the one of the first steps: "0.553 (0.693 in the first steps)".
fn value_with_first(change: &Change, unit: &str) -> String {
    match change.first {
        None => format!("{}{unit}", alike([change.last])[0]),
        Some(first) => {
            let [last, first] = alike([change.last, first]);
            format!("{last}{unit} ({first} in the first steps)")
        }
    }
}

/// A share with the one of the first steps: "71 % (52 % in the first steps)".
fn share_with_first(change: &Change) -> String {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    match change.first {
        None => percent(change.last),
        Some(first) => format!("{} ({} in the first steps)", percent(change.last), percent(first)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::run_logs::{Metrics, Pairs};
    use super::*;

    fn sentence(config: Value, rows: &[Value]) -> String {
        let mut metrics = Metrics::default();
        rows.iter().for_each(|row| metrics.push(row));
        Run::of(config, metrics, Pairs::default()).sentence()
    }

    #[test]
    fn the_result_of_an_evaluated_run_is_its_win_rate() {
        let row = |step: usize, rate: f64| {
            json!({
                "step": step, "eval/win_rate": rate, "eval/win_rate_low": rate - 0.04, "eval/win_rate_high": rate + 0.03,
                "eval/prompts": 200, "eval/kl": 2.41, "eval/mean_length": 12.6, "eval/starting_length": 10.0,
            })
        };
        let text = sentence(json!({"command": "align"}), &[row(60, 0.7), row(120, 0.92)]);
        let expected = "After 120 steps the policy wins 92 % (95 % interval 88 to 95) of 200 held-out prompts against the \
                        starting model; its responses are 26 % longer and 2.4 nats away (KL).";
        assert_eq!(text, expected);
        let unclear = sentence(json!({"command": "align"}), &[row(60, 0.52), json!({"step": 61})]);
        assert!(
            unclear.starts_with("After 60 steps") && unclear.ends_with("this is no clear change."),
            "{unclear}"
        );
    }

    #[test]
    fn the_result_of_a_run_without_evaluation_is_its_training_metrics() {
        let row = |step: usize| {
            json!({
                "step": step, "loss": 0.7 - 0.05 * step as f64, "rewards/accuracies": 0.5 + 0.1 * step as f64,
                "completions/mean_length": 10.0 + step as f64, "objective/kl": 0.02,
            })
        };
        let rows = [row(1), row(2)];
        for (config, expected) in [
            (
                json!({"command": "align"}),
                "After 2 steps the policy's responses are 9 % longer than in the first steps and 0.020 nats away from the \
                 reference model (KL). The policy gives the chosen response the higher reward in 70 % (60 % in the first \
                 steps) of the judged pairs. No win rate was measured: use --eval-dataset FILE to measure one.",
            ),
            (
                json!({"command": "dpo"}),
                "After 2 steps the policy gives the chosen response the higher reward in 70 % (60 % in the first steps) of \
                 the pairs that it is trained on; the loss is 0.600 (0.650 in the first steps). Use --eval-dataset FILE to \
                 measure both on held-out pairs.",
            ),
            (
                json!({"command": "sft"}),
                "After 2 steps the loss is 0.600 nats per token (0.650 in the first steps).",
            ),
        ] {
            assert_eq!(sentence(config, &rows), expected);
        }
        let score =
            sentence(json!({"loss": "grpo"}), &[json!({"step": 1, "reward": 0.5, "objective/kl": -0.0001})]);
        assert!(
            score.contains(
                "0.000 nats away from the reference model (KL). The mean score of a response is 0.500."
            ),
            "{score}"
        );
        let held_out =
            json!({"step": 4, "eval/loss": 0.5, "eval/rewards/accuracies": 0.71, "eval/pairs": 200});
        assert_eq!(
            sentence(json!({"command": "reward"}), &[held_out]),
            "After 4 steps the model gives the chosen response the higher score in 71 % of 200 held-out pairs; the loss is 0.500."
        );
        assert_eq!(sentence(json!({}), &[]), "No step is done yet.");
    }

    #[test]
    fn lengths_are_compared_in_words() {
        let change = |after: f64| length_change(10.0, after).unwrap();
        assert_eq!(
            [10.05, 12.6, 8.0, 25.0].map(change),
            ["equally long", "26 % longer", "20 % shorter", "2.5 times as long"]
        );
        assert_eq!(length_change(0.0, 3.0), None);
    }
}
