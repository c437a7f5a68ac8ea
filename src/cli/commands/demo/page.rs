//! The demo's part of the report.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::{Results, Stage};
use crate::demo::language::Post;
use crate::demo::models::JudgeKind;
use crate::demo::oracle::{Instruction, Quality};
use crate::error::{Error, Result};
use crate::report::{Estimate, KeyFigure, Plot, Report, Sample, Section, Series, Table, Unit, number};
use crate::train::run_dir::PAIRS;

/// Number of samples in the report.
const SHOWN: usize = 8;

impl Results {
    /// The report of the run, preceded by the results of the evaluation.
    pub fn report(&self, dir: &Path, kind: JudgeKind, instruction: Instruction) -> Result<Report> {
        let (before, after) = (self.before(), self.after());
        let mut report = Report::of_run(dir)?;
        report.title(format!("Summaries that are {}", instruction.text())).lead(
            "oaif demo: a small policy writes summaries of short posts, a small judge compares them in pairs, and the \
             policy is trained on its verdicts online.",
        );
        let (rate, judged) = (after.oracle.win_rate(), after.judge.win_rate());
        let range = |e: Estimate| format!("{} to {}", Unit::Share.format(e.low), Unit::Share.format(e.high));
        let share = |e: Estimate| Unit::Share.format(e.value);
        report
            .figure_first(
                KeyFigure::new("Length in words", number(after.words))
                    .note(format!("{} at the start", number(before.words))),
            )
            .figure_first(
                KeyFigure::new("Utility, in facts", number(after.utility))
                    .note(format!("{} at the start", number(before.utility))),
            )
            .figure_first(KeyFigure::new("Wins by the evaluation judge", share(judged)).note(range(judged)))
            .figure_first(KeyFigure::new("Wins by the oracle", share(rate)).note(range(rate)));
        report.fact("Instruction", instruction.text()).fact("Kind of judge", kind.to_string());
        report.add_first(self.samples(instruction)).add_first(self.against_the_starting_policy());
        report.add(judge(dir, instruction)?);
        Ok(report)
    }

    fn against_the_starting_policy(&self) -> Section {
        let estimates =
            |of: fn(&Stage) -> Estimate| self.stages.iter().skip(1).map(move |s| (s.step as f64, of(s)));
        let points = |of: fn(&Stage) -> f64| self.stages.iter().map(move |s| (s.step as f64, of(s)));
        let (after, posts) = (self.after(), self.exam.texts().len());
        let row = |who: &str, tally: &super::Tally| {
            let counts = [tally.wins, tally.ties, tally.losses].map(|n| (n as f64).into());
            [who.into()].into_iter().chain(counts).chain([(tally.win_rate(), Unit::Share).into()])
        };
        Section::new("Against the starting policy")
            .text(format!(
                "One summary of each of {posts} held-out posts, by the starting policy and by the policy after some number \
                 of steps. A win is a summary of higher utility, which the oracle, a program, measures exactly. The oracle \
                 and the evaluation judge, a model, took no part in training. Win rates exclude ties; intervals are 95 % \
                 confidence intervals."
            ))
            .plot(
                Plot::new("Win rate")
                    .labels("step", "fraction of comparisons without ties")
                    .unit(Unit::Share)
                    .level(0.5)
                    .series(Series::band("oracle", estimates(|s| s.oracle.win_rate())))
                    .series(Series::line(
                        "evaluation judge",
                        estimates(|s| s.judge.win_rate()).map(|(step, e)| (step, e.value)),
                    )),
            )
            .plot(Plot::new("Utility").labels("step", "facts, mean").series(Series::line("utility", points(|s| s.utility))))
            .plot(
                Plot::new("Length of a summary")
                    .labels("step", "words, mean")
                    .from_zero()
                    .series(Series::line("words", points(|s| s.words))),
            )
            .table(
                Table::new(["after the last step", "wins", "ties", "losses", "win rate"])
                    .row(row("oracle", &after.oracle))
                    .row(row("evaluation judge", &after.judge)),
            )
    }

    /// The first held-out posts, not selected ones.
    fn samples(&self, instruction: Instruction) -> Section {
        let (before, after) = (&self.before().summaries, &self.after().summaries);
        let qualities = self.exam.qualities(before).into_iter().zip(self.exam.qualities(after));
        let told = |q: &Quality| {
            let faults = match q.repeated + q.flaws {
                0 => String::new(),
                n => format!(", {n} repeated or misplaced"),
            };
            let utility = number(instruction.utility(q));
            format!("{} right, {} invented{faults}, utility {utility}", q.right, q.invented)
        };
        let text = format!(
            "The first {SHOWN} of the held-out posts; \"preferred\" marks the summary that the oracle prefers."
        );
        let mut section = Section::new("Before and after").text(text);
        let summaries = before.iter().zip(after).zip(qualities);
        for (post, ((before, after), (old, new))) in self.exam.texts().iter().zip(summaries).take(SHOWN) {
            let [low, high] = [&old, &new].map(|q| instruction.utility(q));
            let sample = Sample::new(post.as_str());
            let sample = match low > high {
                true => sample.preferred("at the start", before),
                false => sample.answer("at the start", before),
            };
            let sample = match high > low {
                true => sample.preferred("after training", after),
                false => sample.answer("after training", after),
            };
            section = section.sample(sample.note(format!(
                "facts counted by the oracle: {}; after training: {}",
                told(&old),
                told(&new)
            )));
        }
        section
    }
}

/// The agreement of the judge's verdicts in this run with the oracle.
fn judge(dir: &Path, instruction: Instruction) -> Result<Section> {
    let path = dir.join(PAIRS);
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
        let utility = |key: &str| instruction.utility(&Quality::of(&post, text(key)));
        let gap = utility("response_1") - utility("response_2");
        if gap != 0.0 && p_first != 0.5 {
            decided += 1;
            agreed += usize::from((gap > 0.0) == (p_first > 0.5));
        }
    }
    let orders = match both_orders {
        0 => "The judge compares the log-probabilities of the summaries, so their order has no effect.",
        _ => {
            "The judge saw each pair in both orders; the order flips above are the pairs with different verdicts."
        }
    };
    Ok(Section::new("Agreement of judge and oracle").text(orders).table(
        Table::new(["pairs of this run where both have a preference", "agreement"])
            .row([(decided as f64).into(), (Estimate::share(agreed, decided), Unit::Share).into()]),
    ))
}
