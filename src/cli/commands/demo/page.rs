//! The report of `oaif demo`, made from the files in its folder.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use clap::ValueEnum;
use serde_json::Value;

use crate::demo::language::Post;
use crate::demo::oracle::{Instruction, Quality};
use crate::error::{Error, Result};
use crate::files;
use crate::numbers::decimals;
use crate::report::{
    Estimate, KeyFigure, Plot, Report, RunEnds, Sample, Section, Series, Table, Unit, length_change, number,
    rate_in_words, unclear,
};
use crate::train::run_dir::{EVAL_SAMPLES, PAIRS, RUN, SUMMARY};

/// The page of the demo in the folder `dir`; `None` for another run, and for a demo that has not ended.
///
/// # Errors
/// As [`Report::of_run`].
pub fn report_of(dir: &Path) -> Result<Option<Report>> {
    let Some(config) = files::read_json_if_present(&dir.join(RUN))? else { return Ok(None) };
    let instruction = config["instruction"].as_str().and_then(|name| Instruction::from_str(name, true).ok());
    let (true, Some(instruction)) = (config["command"] == "demo", instruction) else { return Ok(None) };
    let Some(summary) = files::read_json_if_present(&dir.join(SUMMARY))? else { return Ok(None) };
    let page = Page { dir, config, instruction, summary };
    page.report().map(Some)
}

struct Page<'a> {
    dir: &'a Path,
    config: Value,
    instruction: Instruction,
    summary: Value,
}

/// A number in `summary.json`.
fn figure(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or(f64::NAN)
}

/// A win rate in `summary.json`, with its interval if it has one.
fn rate(object: &Value, name: &str) -> Estimate {
    let value = figure(object, name);
    let end = |end: &str| object[format!("{name}_{end}")].as_f64().unwrap_or(value);
    Estimate::new(value, end("low"), end("high"))
}

impl Page<'_> {
    fn report(&self) -> Result<Report> {
        let summary = &self.summary;
        let mut report = Report::of_run(self.dir)?;
        let kl = RunEnds::of_run(self.dir)?.of("objective/kl").map(|(_, last)| last);
        report
            .title(format!("oaif demo: summaries that should be {}", self.instruction.text()))
            .result(self.sentence(kl))
            .lead(
                "oaif demo: a small policy writes summaries of short posts, a small judge compares two of them at a time, and \
                 the policy is trained on the verdicts.",
            );
        let share = Unit::Share;
        let by = |name: &str, rate: Estimate| {
            KeyFigure::new(name, share.format(rate.value))
                .note(format!("95 % interval {}", rate.interval(share)))
        };
        let [before, after] = ["before", "after"].map(|when| {
            ["mean_length", "mean_utility"].map(|name| number(figure(summary, &format!("{name}_{when}"))))
        });
        let of_start = |text: &str, unit: &str| format!("{text} {unit} of the starting model");
        report
            .figure_first(
                KeyFigure::new("Utility", format!("{} facts", after[1])).note(of_start(&before[1], "facts")),
            )
            .figure_first(by("Win rate by the evaluation judge", rate(summary, "judge_win_rate")))
            .figure_first(
                KeyFigure::new("Length of a response", format!("{} words", after[0]))
                    .note(of_start(&before[0], "words"))
                    .main(),
            )
            .figure_first(by("Win rate by the oracle", rate(summary, "oracle_win_rate")).main());
        let kind = self.config["judge-kind"].as_str().unwrap_or("–");
        report.fact("Instruction", self.instruction.text()).fact("Kind of judge", kind);
        report.add_first(self.samples()?).add_first(self.against_the_reference());
        report.add(self.judge(kind)?);
        report
            .term(
                "oracle",
                "a program that measures the utility of a summary exactly; it has no part in training",
            )
            .term("utility", utility(self.instruction))
            .term("evaluation judge", "a second judge model that has no part in training");
        Ok(report)
    }

    fn sentence(&self, kl: Option<f64>) -> String {
        let summary = &self.summary;
        let oracle = rate(summary, "oracle_win_rate");
        let steps = number(figure(summary, "steps"));
        let posts = number(figure(summary, "held_out_posts"));
        if !oracle.value.is_finite() {
            return format!(
                "After {steps} steps all {posts} held-out posts are ties according to the oracle."
            );
        }
        let ties = figure(&summary["oracle"], "ties");
        let ties = match ties {
            0.0 => String::new(),
            1.0 => ", 1 tie left out".into(),
            ties => format!(", {} ties left out", number(ties)),
        };
        let length =
            length_change(figure(summary, "mean_length_before"), figure(summary, "mean_length_after"));
        let kl = kl.map(|kl| format!("{} nats away (KL)", decimals(kl, 1)));
        let parts: Vec<String> = length.into_iter().chain(kl).collect();
        format!(
            "After {steps} steps the policy wins {} of {posts} held-out posts against the starting model, according to the \
             oracle{ties}; its summaries are {}.{}",
            rate_in_words(oracle),
            parts.join(" and "),
            unclear(oracle)
        )
    }

    fn against_the_reference(&self) -> Section {
        let summary = &self.summary;
        let stages: Vec<&Value> = summary["stages"].as_array().into_iter().flatten().collect();
        let points = |key: &'static str| stages.iter().map(move |s| (figure(s, "step"), figure(s, key)));
        let later = || stages.iter().copied().filter(|stage| figure(stage, "step") > 0.0);
        // Before the first step the policy is the starting model.
        let rates = |name: &'static str| {
            std::iter::once((0.0, 0.5.into())).chain(later().map(move |s| (figure(s, "step"), rate(s, name))))
        };
        let row = |who: &str, counts: &str, name: &str| {
            let counts = ["wins", "ties", "losses"].map(|key| figure(&summary[counts], key).into());
            [who.into()].into_iter().chain(counts).chain([(rate(summary, name), Unit::Share).into()])
        };
        let plot = |title: &str, label: &str| {
            Plot::new(title).labels("step", label).over(0.0, figure(summary, "steps"))
        };
        Section::new("Against the starting model")
            .text(format!(
                "Each of {} held-out posts has a summary by the starting model and one by the policy after each number of \
                 steps. According to the oracle, the summary with the higher utility wins. Win rates exclude ties and have 95 % \
                 intervals.",
                number(figure(summary, "held_out_posts"))
            ))
            .plot(
                plot("Win rate", "share of the posts without a tie")
                    .unit(Unit::Share)
                    .level(0.5)
                    .series(Series::band("oracle", rates("oracle_win_rate")))
                    .series(Series::line(
                        "evaluation judge",
                        rates("judge_win_rate").map(|(step, rate)| (step, rate.value)),
                    )),
            )
            .plot(plot("Utility", "facts, mean").series(Series::line("utility", points("mean_utility"))))
            .plot(plot("Length of a summary", "words, mean").from_zero().series(Series::line("words", points("mean_length"))))
            .table(
                Table::new(["after the last step", "wins", "ties", "losses", "win rate"])
                    .row(row("oracle", "oracle", "oracle_win_rate"))
                    .row(row("evaluation judge", "judge", "judge_win_rate")),
            )
    }

    fn samples(&self) -> Result<Section> {
        let path = self.dir.join(EVAL_SAMPLES);
        let text = if path.exists() { files::read_text(&path)? } else { String::new() };
        let rows: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let quality = |q: &Quality| {
            let faults = match q.repeated + q.flaws {
                0 => String::new(),
                n => format!(", {n} repeated or out of place"),
            };
            let utility = number(self.instruction.utility(q));
            format!("{} right, {} invented{faults}, utility {utility}", q.right, q.invented)
        };
        let intro = format!(
            "The first {} held-out posts, with the facts that the oracle counts. The oracle prefers the summary with the higher \
             utility.",
            rows.len()
        );
        let mut section = Section::new("Before and after").text(intro);
        for row in &rows {
            let text = |key: &str| row[key].as_str().unwrap_or_default();
            let Some(post) = Post::parse(text("prompt")) else { continue };
            let (before, after) = (text("starting_response"), text("policy_response"));
            let mut sample = Sample::new(text("prompt"));
            for (label, summary, wins) in [("starting model", before, "loss"), ("policy", after, "win")] {
                sample = match text("verdict") == wins {
                    true => sample.preferred(label, summary),
                    false => sample.response(label, summary),
                };
            }
            let [before, after] = [before, after].map(|summary| quality(&Quality::of(&post, summary)));
            section = section.sample(sample.note(format!("starting model: {before}; policy: {after}")));
        }
        Ok(section)
    }

    /// Compares the judge's verdicts in this run with those of the oracle.
    fn judge(&self, kind: &str) -> Result<Section> {
        let path = self.dir.join(PAIRS);
        let pairs = BufReader::new(File::open(&path).map_err(Error::io("read", &path))?);
        let (mut agreed, mut decided, mut both_orders) = (0, 0, 0);
        for line in pairs.lines() {
            let line = line.map_err(Error::io("read", &path))?;
            let row: Value = serde_json::from_str(&line).unwrap_or_default();
            let text = |key: &str| row[key].as_str().unwrap_or_default();
            both_orders += usize::from(row["p_21"].is_number());
            let (Some(post), Some(p_first)) = (Post::parse(text("prompt")), row["p_first"].as_f64()) else {
                continue;
            };
            let utility = |key: &str| self.instruction.utility(&Quality::of(&post, text(key)));
            let gap = utility("response_1") - utility("response_2");
            if gap != 0.0 && p_first != 0.5 {
                decided += 1;
                agreed += usize::from((gap > 0.0) == (p_first > 0.5));
            }
        }
        let orders = match both_orders {
            0 => {
                "The judge compares the probabilities that it gives to the two summaries, so the order cannot change its verdict."
            }
            _ => {
                "Each pair is judged in both orders; the section Judge shows how often the two verdicts disagree."
            }
        };
        let size = self.config["judge"].as_str().unwrap_or_default();
        let text = format!(
            "How often the judge prefers the summary that the oracle prefers, over the pairs of this run on which both have a \
             preference. {orders}"
        );
        Ok(Section::new("Agreement with the oracle").text(text).table(
            Table::new(["judge", "pairs", "agreement with the oracle"]).row([
                format!("{size} {kind} judge").into(),
                (decided as f64).into(),
                (Estimate::share(agreed, decided), Unit::Share).into(),
            ]),
        ))
    }
}

/// The utility of a summary in words, see [`Instruction::utility`].
fn utility(instruction: Instruction) -> String {
    let right = match instruction {
        Instruction::Accurate => "the number of right facts in a summary",
        Instruction::Short => {
            "the number of right facts in a summary, at most 3, minus 1 for each further fact"
        }
        Instruction::VeryShort => "1 for a right fact in a summary, minus 1 for each further fact",
        Instruction::Cheerful => {
            "the number of right facts in a summary, plus 2 for a cheerful word and minus 2 for a gloomy one"
        }
    };
    format!(
        "{right}; an invented fact costs 2, a repeated fact and each flaw, such as a missing full stop, cost 1. It is measured in \
         facts"
    )
}
