//! Formats the report of a step as one line of the terminal, or as the fields of a JSON event.

use serde_json::Value;

use crate::numbers::decimals;
use crate::train::StepReport;
use crate::train::report::{EvaluationReport, HeldOutReport, RanksReport};

/// A line of the terminal: a template for indicatif, and the message that it shows.
pub(super) struct Bar {
    pub template: String,
    pub message: String,
}

/// A part of the line. If the line is too long, the fields with the highest rank are left out first.
struct Field {
    rank: usize,
    text: String,
}

/// The line for a terminal with this number of columns; `phase` is the running phase of the step.
pub(super) fn of(report: &StepReport, phase: &str, columns: usize) -> Bar {
    let bar = match columns {
        0..40 => 0,
        40..100 => 10,
        _ => 20,
    };
    let template = match bar {
        0 => "{pos}/{len} {wide_msg}".to_owned(),
        bar => format!("{{bar:{bar}}} {{pos}}/{{len}} {{wide_msg}}"),
    };
    let count = format!("{}/{} ", report.step, report.total_steps).len();
    // Some terminals move to the next line when their last column is written.
    let room = columns.saturating_sub(bar + usize::from(bar > 0) + count + 1);
    let mut fields = fields(report);
    if !phase.is_empty() {
        fields.push(Field { rank: 4, text: phase.to_owned() });
    }
    let length = |fields: &[Field]| {
        let gaps = 2 * fields.len().saturating_sub(1);
        fields.iter().map(|field| field.text.chars().count()).sum::<usize>() + gaps
    };
    while length(&fields) > room {
        let Some((last, _)) = fields.iter().enumerate().max_by_key(|(_, field)| field.rank) else { break };
        fields.remove(last);
    }
    Bar { template, message: joined(fields) }
}

/// The fields of the event "step": the row of `metrics.jsonl`, the number of steps and the remaining seconds.
pub(super) fn fields_of(report: &StepReport) -> Value {
    // Serialised as text first: `to_value` would widen f32 to f64 and print more digits.
    let row = serde_json::to_string(report).expect("numbers and texts");
    let mut fields: Value = serde_json::from_str(&row).expect("its own text");
    fields["total_steps"] = report.total_steps.into();
    fields["seconds_left"] = report.seconds_left.into();
    fields
}

/// The line if standard error is not a terminal.
pub(super) fn plain(report: &StepReport) -> String {
    format!("step {}/{}  {}", report.step, report.total_steps, joined(fields(report)))
}

/// The results on held-out prompts or pairs, if the step has any.
pub(super) fn evaluation(report: &StepReport) -> Option<String> {
    let percent = |share: f64| decimals(100.0 * share, 1);
    let on_prompts = report.evaluation.map(
        |EvaluationReport { win_rate, win_rate_low, win_rate_high, prompts, .. }| {
            let [rate, low, high] = [win_rate, win_rate_low, win_rate_high].map(percent);
            format!(
                "win rate {rate} % ({low} to {high}) against the starting model on {prompts} held-out prompts"
            )
        },
    );
    let on_pairs = report.held_out.map(|HeldOutReport { loss, accuracies, pairs, .. }| {
        let (loss, accuracy) = (decimals(loss, 4), percent(accuracies));
        format!("loss {loss}, accuracy {accuracy} % on {pairs} held-out pairs")
    });
    on_prompts.or(on_pairs).map(|text| format!("after step {}: {text}", report.step))
}

fn joined(fields: Vec<Field>) -> String {
    fields.into_iter().map(|field| field.text).collect::<Vec<_>>().join("  ")
}

fn fields(report: &StepReport) -> Vec<Field> {
    // The loss of a policy gradient stays around 0 and says nothing about the progress.
    let loss = match (report.gradient, report.loss) {
        (Some(gradient), _) => format!("mean score {}", decimals(gradient.reward, 3)),
        (None, Some(loss)) => format!("loss {}", decimals(loss, 4)),
        (None, None) => "no pairs".to_owned(),
    };
    let margin = report.margin().map(|margin| format!("margin {}", decimals(margin, 3)));
    let kl = report.policy.map(|policy| format!("KL {}", decimals(policy.kl, 2)));
    let length = report.responses.mean_length.map(|tokens| format!("length {tokens:.0}"));
    let first = report.first_preferred().map(|share| format!("1st preferred {:.0} %", 100.0 * share));
    let speed = format!("{:.0} tokens/s", report.times.tokens_per_second);
    let left = report.seconds_left.map(|seconds| format!("{} left", clock(seconds)));
    let ranks = report.ranks.as_ref().map(ranks);
    let ranked = [
        (0, Some(loss)),
        (2, margin),
        (3, kl),
        (5, length),
        (7, first),
        (6, Some(speed)),
        (8, ranks),
        (1, left),
    ];
    ranked.into_iter().filter_map(|(rank, text)| Some(Field { rank, text: text? })).collect()
}

/// The seconds that each rank worked for the step; for more than four ranks, the shortest and the longest time.
fn ranks(report: &RanksReport) -> String {
    let seconds = |ms: &f64| format!("{:.2}", ms / 1e3);
    let times = match report.busy_ms.len() {
        0..=4 => report.busy_ms.iter().map(seconds).collect::<Vec<_>>().join(" "),
        _ => {
            let least = report.busy_ms.iter().copied().fold(f64::INFINITY, f64::min);
            format!("{} to {}", seconds(&least), seconds(&report.busy_ms[report.slowest]))
        }
    };
    format!("ranks busy {times} s, slowest {}", report.slowest)
}

/// Formats a duration: "0:07", "12:34", "1:02:03".
fn clock(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::report::{
        JudgeReport, PolicyGradientReport, PolicyReport, PreferenceReport, ResponseReport, Times,
    };

    fn step() -> StepReport {
        StepReport {
            step: 7,
            total_steps: 120,
            loss: Some(0.69312),
            preference: Some(PreferenceReport { margins: -0.0004, ..PreferenceReport::default() }),
            policy: Some(PolicyReport { kl: 0.123, ..PolicyReport::default() }),
            responses: ResponseReport { mean_length: Some(41.6), ..ResponseReport::default() },
            judging: Some(JudgeReport { first: Some(0.5625), ..JudgeReport::default() }),
            times: Times { tokens_per_second: 4321.4, ..Times::default() },
            seconds_left: Some(62.4),
            ..StepReport::default()
        }
    }

    /// The width of the line in columns, including the bar.
    fn columns(bar: &Bar) -> usize {
        let blocks = bar.template.strip_prefix("{bar:").map_or(0, |t| t[..2].parse::<usize>().unwrap() + 1);
        blocks + "7/120 ".len() + bar.message.chars().count()
    }

    #[test]
    fn an_evaluation_is_a_line_of_its_own() {
        assert_eq!(evaluation(&step()), None);
        let on_prompts = EvaluationReport {
            win_rate: 0.6128,
            win_rate_low: 0.55,
            win_rate_high: 0.67,
            prompts: 64,
            ..EvaluationReport::default()
        };
        let text = evaluation(&StepReport { evaluation: Some(on_prompts), ..step() }).unwrap();
        let expected =
            "after step 7: win rate 61.3 % (55.0 to 67.0) against the starting model on 64 held-out prompts";
        assert_eq!(text, expected);
        let on_pairs = HeldOutReport { loss: 0.65214, accuracies: 0.5, pairs: 8, ..HeldOutReport::default() };
        let text = evaluation(&StepReport { held_out: Some(on_pairs), ..step() }).unwrap();
        assert_eq!(text, "after step 7: loss 0.6521, accuracy 50.0 % on 8 held-out pairs");
    }

    #[test]
    fn a_line_fits_a_terminal_of_any_width() {
        for width in 0..200 {
            for phase in ["", "judging"] {
                let bar = of(&step(), phase, width);
                assert!(columns(&bar) < width.max(8), "{width}: {} {}", bar.template, bar.message);
            }
        }
    }

    #[test]
    fn narrower_terminals_leave_out_the_least_important_fields_first() {
        let message = |width| of(&step(), "judging", width).message;
        assert_eq!(
            message(140),
            "loss 0.6931  margin 0.000  KL 0.12  length 42  1st preferred 56 %  4321 tokens/s  1:02 left  judging"
        );
        assert_eq!(
            message(120),
            "loss 0.6931  margin 0.000  KL 0.12  length 42  4321 tokens/s  1:02 left  judging"
        );
        assert_eq!(message(100), "loss 0.6931  margin 0.000  KL 0.12  length 42  1:02 left  judging");
        assert_eq!(message(80), "loss 0.6931  margin 0.000  KL 0.12  1:02 left  judging");
        assert_eq!(message(40), "loss 0.6931  1:02 left");
        assert_eq!(message(20), "loss 0.6931");
        assert_eq!(message(10), "");
    }

    #[test]
    fn a_step_without_pairs_shows_no_loss_and_a_rounded_zero_has_no_sign() {
        let report = StepReport {
            loss: None,
            preference: None,
            policy: None,
            responses: ResponseReport::default(),
            judging: None,
            seconds_left: None,
            ..step()
        };
        assert_eq!(plain(&report), "step 7/120  no pairs  4321 tokens/s");
        let gradient = Some(PolicyGradientReport { reward: 1.5, ..PolicyGradientReport::default() });
        let rated = StepReport { gradient, ..report };
        assert_eq!(plain(&rated), "step 7/120  mean score 1.500  4321 tokens/s");
        assert_eq!(decimals(-0.0004, 3), "0.000");
        assert_eq!([decimals(-0.0006, 3), decimals(0.0, 3)], ["-0.001", "0.000"]);
        assert_eq!(decimals(f64::NAN, 4), "NaN", "a loss that is not finite is shown");
    }

    #[test]
    fn durations_are_formatted_as_on_a_clock() {
        assert_eq!([0.4, 61.0, 3599.0, 3723.0].map(clock), ["0:00", "1:01", "59:59", "1:02:03"]);
    }
}
