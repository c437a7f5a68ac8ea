//! The report of an evaluation.

use serde_json::Value;

use super::bars::Bars;
use super::page::{KeyFigure, Report};
use super::run_result::{length_change, rate_in_words, unclear};
use super::scale::{Estimate, Unit, alike, number};
use super::section::{Sample, Section, Table};
use crate::eval::comparison::{Decision, Decisions, LengthBucket};
use crate::eval::diversity::ResponseStatistics;
use crate::eval::ensemble::VotesReport;
use crate::eval::interval::{Interval, Z95};
use crate::eval::result::{EvalResult, EvaluatedPair, SecondJudge};
use crate::numbers::evenly;

/// The number of pairs of responses that a report shows.
const SHOWN: usize = 12;

fn estimate(value: f64, interval: Interval) -> Estimate {
    Estimate::new(value, interval.low, interval.high)
}

impl Report {
    /// The report of an evaluation and of its pairs.
    pub fn of_eval(result: &EvalResult, pairs: &[EvaluatedPair], configuration: Value) -> Report {
        let contest = &result.contest;
        let mut report = Report::new(format!("{} against {}", contest.a, result.contest.against));
        report.result(sentence(result)).lead(
            "oaif eval: a judge compares the responses of A with those of B, in both orders where the judge has orders.",
        );
        for warning in &result.warnings {
            report.warning(warning.clone());
        }
        for (name, value) in [("A", &contest.a), ("B", &contest.b), ("Judge", &contest.judge)] {
            report.fact(name, value.clone());
        }
        report.fact("Prompts", number(result.prompts as f64));
        let share = Unit::Share;
        let rate = |label: &str, value: f64, interval: Interval| {
            let note = format!("95 % interval {}", estimate(value, interval).interval(share));
            KeyFigure::new(label, share.format(value)).note(note).main()
        };
        report.figure(rate("Win rate of A", result.win_rate, result.interval));
        let controlled = &result.length_controlled;
        report.figure(rate("Length-controlled win rate", controlled.win_rate, controlled.interval));
        let ([a, b], unit) = mean_lengths(result);
        let [a, b] = alike([a, b]);
        report.figure(
            KeyFigure::new("Length of A's responses", format!("{a} {unit}"))
                .note(format!("{b} {unit} of B's"))
                .main(),
        );
        if let Some(kl) = result.kl {
            let [mean] = alike([kl.mean]);
            let figure = KeyFigure::new("KL to the starting model", format!("{mean} nats"));
            report.figure(figure.note("mean of A's responses").main());
        }
        if let Some(kappa) = result.second_judge.as_ref().and_then(|s| s.agreement.as_ref()?.kappa) {
            report.figure(KeyFigure::new("Judges' κ", format!("{kappa:.2}")).note("1: full agreement"));
        }
        report.add(win_rates(result)).add(lengths(result)).add(judge(result)).add(responses(result));
        report.add(samples(result, pairs)).explain_terms().configuration(configuration);
        report
    }
}

/// The mean lengths of A's and of B's responses, and their unit.
fn mean_lengths(result: &EvalResult) -> ([f64; 2], &'static str) {
    let both = [&result.responses_a, &result.responses_b];
    match both.map(|responses| responses.mean_tokens) {
        [Some(a), Some(b)] => ([a, b], "tokens"),
        _ => (both.map(|responses| responses.mean_characters.unwrap_or(f64::NAN)), "characters"),
    }
}

/// The result in one or two sentences.
fn sentence(result: &EvalResult) -> String {
    let rate = estimate(result.win_rate, result.interval);
    let ([a, b], _) = mean_lengths(result);
    let kl = result.kl.map(|kl| format!("{} nats away (KL)", alike([kl.mean])[0]));
    let parts: Vec<String> = length_change(b, a).into_iter().chain(kl).collect();
    let its = match parts.is_empty() {
        true => String::new(),
        false => format!("; its responses are {}", parts.join(" and ")),
    };
    format!(
        "A wins {} of {} prompts against {}{its}.{}",
        rate_in_words(rate),
        result.decisions.decided(),
        result.contest.against,
        unclear(rate)
    )
}

fn win_rates(result: &EvalResult) -> Section {
    let Decisions { wins, ties, losses, .. } = result.decisions;
    let decided = result.decisions.decided();
    let outcomes = Bars::new("Win, tie, loss")
        .label("share of the prompts, A's side")
        .unit(Unit::Share)
        .group("A wins", [Estimate::share(wins, decided)])
        .group("tie", [Estimate::share(ties, decided)])
        .group("B wins", [Estimate::share(losses, decided)]);
    let controlled = &result.length_controlled;
    let mut rates = Bars::new("Win rate of A")
        .label("a tie is half a win; with 95 % intervals")
        .unit(Unit::Share)
        .level(0.5)
        .group("all prompts", [estimate(result.win_rate, result.interval)])
        .group("at equal length", [estimate(controlled.win_rate, controlled.interval)]);
    if let Some(SecondJudge { win_rate: Some(rate), interval, .. }) = &result.second_judge {
        rates = rates.group("second judge", [estimate(*rate, *interval)]);
    }
    let [low, high] =
        [result.bootstrap_interval.low, result.bootstrap_interval.high].map(|v| Unit::Share.format(v));
    let mut text = format!(
        "A wins {wins}, ties {ties} and loses {losses} of {decided} prompts; {} of the ties are identical responses. The chart \
         shows Wilson's interval; the bootstrap interval (BCa) is {low} to {high}.",
        result.identical
    );
    if let Some(second) = &result.second_judge {
        let Decisions { wins, ties, losses, .. } = second.decisions;
        text += &match second.win_rate {
            Some(_) => {
                format!(" According to {}, A wins {wins}, ties {ties} and loses {losses}.", second.judge)
            }
            None => format!(" {} gave no usable verdict.", second.judge),
        };
    }
    Section::new("Against B").text(text).bars(outcomes).bars(rates)
}

fn lengths(result: &EvalResult) -> Section {
    let bucket = |bars: Bars, bucket: &LengthBucket| match bucket.mean_preference {
        Some(rate) => {
            let name = match bucket.low == bucket.high {
                true => format!("{:+.0}", bucket.low),
                false => format!("{:+.0} to {:+.0}", bucket.low, bucket.high),
            };
            bars.group(name, [estimate(rate, bucket.interval)])
        }
        None => bars,
    };
    let bars = Bars::new("Win rate by difference in length")
        .label("characters of A's response minus those of B's")
        .unit(Unit::Share)
        .level(0.5);
    let bars = result.length_buckets.iter().fold(bars, bucket);
    let controlled = &result.length_controlled;
    let text = format!(
        "The length-controlled win rate is the value of logit P(A wins) = θ + φ tanh(d / s) at d = 0, where d is the difference \
         in length and s = {} characters is its standard deviation. φ = {}; above 0, longer responses win. If A's responses are \
         better because they say more, this control removes that part too.",
        number(controlled.length_scale),
        number(controlled.phi)
    );
    Section::new("Length").text(text).bars(bars)
}

fn judge(result: &EvalResult) -> Section {
    let share = |name: &str, share: crate::eval::agreement::Share| {
        share.share.map(|value| {
            let cells = [name.into(), (estimate(value, share.interval), Unit::Share).into()];
            (cells, share.count as f64)
        })
    };
    let order = &result.order;
    let mut rows = vec![
        share("the longer response wins", result.length_preference),
        share("the response shown first wins", order.first_wins),
        share("the winner changes with the order", order.flipped),
        share("the verdict changes with the order", order.changed),
    ];
    if let Some(agreement) = result.second_judge.as_ref().and_then(|second| second.agreement.as_ref()) {
        rows.push(share("the second judge agrees", agreement.agreement));
    }
    let table = rows
        .into_iter()
        .flatten()
        .fold(Table::new(["verdicts", "share", "pairs"]), |table, ([name, value], count)| {
            table.row([name, value, count.into()])
        });
    let mut section = Section::new("Judge").table(table);
    if let Some(VotesReport { agreement, kappa }) = result.ensemble {
        let kappa = kappa.map_or_else(String::new, |kappa| {
            format!("; Cohen's κ, the mean over all pairs of members, is {kappa:.2}")
        });
        let share = Unit::Share.format(agreement);
        section = section.text(format!("All members of the ensemble agree on {share} of the pairs{kappa}."));
    }
    if let Some(own) = &result.self_preference {
        let above = own.points().map_or_else(
            || {
                "use a second judge, whose model wrote none of the responses, to measure how much it prefers them"
                    .to_owned()
            },
            |points| format!("it prefers them by {points} more than the second judge does"),
        );
        section = section.text(format!("{}'s responses are from {}: {above}.", own.own, own.model));
    }
    if let Some(second) = &result.second_judge
        && let Some(agreement) = &second.agreement
        && let (Some(kappa), Some(interval)) = (agreement.kappa, agreement.interval)
    {
        section = section.text(format!(
            "Cohen's κ with {} is {kappa:.2} (95 % interval {:.2} to {:.2}) over win, tie and loss: 1 is full agreement, 0 is \
             chance.",
            second.judge, interval.low, interval.high
        ));
        let names = ["A wins", "tie", "B wins"];
        let table = names.iter().zip(agreement.table).fold(
            Table::new(["judge, second judge", names[0], names[1], names[2]]),
            |table, (name, counts)| {
                let [win, tie, loss] = counts.map(|count| (count as f64).into());
                table.row([(*name).into(), win, tie, loss])
            },
        );
        section = section.table(table);
    }
    section
}

fn responses(result: &EvalResult) -> Section {
    type Figure = fn(&ResponseStatistics) -> Option<f64>;
    let figures: [(&str, Unit, Figure); 9] = [
        ("tokens, mean", Unit::Plain, |s| s.mean_tokens),
        ("words, mean", Unit::Plain, |s| s.mean_words),
        ("characters, mean", Unit::Plain, |s| s.mean_characters),
        ("ended by themselves", Unit::Share, |s| s.ended),
        ("empty", Unit::Share, |s| s.empty),
        ("distinct-1", Unit::Plain, |s| s.distinct[0]),
        ("distinct-2", Unit::Plain, |s| s.distinct[1]),
        ("distinct-3", Unit::Plain, |s| s.distinct[2]),
        ("3-grams repeated within a response", Unit::Share, |s| s.repetition),
    ];
    let text = |unit: Unit, value: Option<f64>| unit.format(value.unwrap_or(f64::NAN));
    let mut table = figures.iter().fold(Table::new(["measure", "A", "B"]), |table, (name, unit, of)| {
        let [a, b] =
            [&result.responses_a, &result.responses_b].map(|responses| text(*unit, of(responses)).into());
        table.row([(*name).into(), a, b])
    });
    if let Some(kl) = result.kl {
        let half = Z95 * kl.standard_error;
        let value = Estimate::new(kl.mean, kl.mean - half, kl.mean + half);
        table =
            table.row(["log π − log π₀ of a response, nats".into(), (value, Unit::Plain).into(), "".into()]);
    }
    Section::new("Responses")
        .text(
            "distinct-n is the number of different n-grams of words in all responses divided by the number of all n-grams. It \
             falls as responses get longer, so compare it only between responses of about the same length.",
        )
        .table(table)
}

/// Some responses of A and B side by side, for evenly spaced prompts.
fn samples(result: &EvalResult, pairs: &[EvaluatedPair]) -> Section {
    evenly(pairs.len(), SHOWN).map(|i| &pairs[i]).fold(Section::new("Some responses"), |section, pair| {
        let decision = pair.verdict.decision();
        let mut sample = Sample::new(pair.prompt.clone());
        for (name, response, wins) in [("A", &pair.a, Decision::Win), ("B", &pair.b, Decision::Loss)] {
            sample = match decision == Some(wins) {
                true => sample.preferred(name, response.text.clone()),
                false => sample.response(name, response.text.clone()),
            };
        }
        let p = |p: Option<f64>| p.map_or_else(|| "–".into(), number);
        let note = match (decision, &pair.verdict.why) {
            (_, Some(why)) => format!("no usable verdict: {why}"),
            _ if pair.verdict.identical => "identical responses".into(),
            _ => format!(
                "probability for A by {}: {} shown first, {} shown second",
                result.contest.judge,
                p(pair.verdict.p_12),
                p(pair.verdict.p_21)
            ),
        };
        section.sample(sample.note(note))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::judging::PairVerdict;
    use crate::eval::result::{Contest, EvaluatedResponse, OwnModel};
    use crate::judge::queue::Usage;

    #[test]
    fn the_result_comes_first_and_responses_are_escaped() {
        let attack = "<script>alert(1)</script>";
        let response =
            |text: String| EvaluatedResponse { text, kl: Some(0.5), ..EvaluatedResponse::default() };
        let pair = |i: usize| EvaluatedPair {
            prompt: format!("{attack} {i}"),
            a: response(format!("{attack} {}", "a".repeat(i))),
            b: response("b".into()),
            verdict: PairVerdict { p_12: Some(0.9), p_21: Some(0.8), ..PairVerdict::default() },
        };
        let pairs: Vec<EvaluatedPair> = (0..40).map(pair).collect();
        let [a, b, against, judge] = [attack; 4].map(str::to_owned);
        let mut result =
            EvalResult::of(Contest { a, b, against, judge, members: vec![] }, &pairs, Usage::default())
                .unwrap();
        let second: Vec<Option<Decision>> =
            (0..40).map(|i| Some(if i % 4 == 0 { Decision::Loss } else { Decision::Win })).collect();
        result.compare_with(attack.into(), &pairs, &second, None, Usage::default()).unwrap();
        result.judged_by_its_own_model(true, OwnModel::OfJudge, &pairs, Some(&second));
        result.warnings.push(attack.into());
        let html = Report::of_eval(&result, &pairs, serde_json::json!({"judge": attack})).html();
        assert!(!html.contains("<script") && !html.contains("NaN"), "{html}");
        let parts = [
            "A wins 100\u{a0}% (95\u{a0}% interval 91 to 100) of 40 prompts against",
            "Win rate of A",
            "by difference in length",
            "own model: it prefers them by +25.0",
            "Some responses",
        ];
        let places = parts.map(|part| html.find(part).unwrap_or_else(|| panic!("{part}")));
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(html.matches(": 0.9 shown first, 0.8 shown second").count(), SHOWN);
        assert!(html.contains(&"a".repeat(39)), "the last pair is shown: {html}");
    }
}
