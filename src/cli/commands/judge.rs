//! `oaif judge`.

use serde_json::{Value, json};

use super::{open_judge, write_lines};
use crate::Wait;
use crate::cli::args::JudgePlan;
use crate::cli::console::{Console, say, warn};
use crate::cli::labelling::Labelling;
use crate::cli::signals;
use crate::data::rows::{Responses, Text, read_responses};
use crate::error::{Error, Result};
use crate::eval::ensemble::{Votes, VotesReport};
use crate::eval::wilson_interval;
use crate::gpu::{Gpu, Limits};
use crate::judge::queue::compare_all;
use crate::judge::{Counts, Pair, PairOutcome, Verdict};

pub fn run(plan: JudgePlan) -> Result<()> {
    let rows = read_responses(&plan.input, &plan.columns)?;
    let texts = rows.iter().map(texts).collect::<Result<Vec<_>>>()?;
    let desk = plan.judge.desk();
    if let (Some(_), Some(output)) = (&desk, &plan.output)
        && output.is_file()
    {
        let why = "exists already and may hold labels: give another file, or remove it";
        return Err(Error::config("--output", format!("{} {why}", output.display())));
    }
    // Only models need a GPU.
    let gpu = match plan.judge.models().is_empty() {
        true => Gpu::without_device(Limits::default()),
        false => plan.gpu.open()?,
    };
    let mut judge = open_judge(&gpu, plan.judge, plan.base_dtype, false)?;
    signals::catch_with_message("stopping; verdicts so far are written");
    let _terminal = desk.clone().map(|desk| Labelling::start(desk, signals::requests()));
    let pairs: Vec<Pair<'_>> = texts
        .iter()
        .map(|[prompt, response_1, response_2]| Pair { prompt, response_1, response_2 })
        .collect();
    let phase = format!("judging by {}", judge.name());
    let mut console = Console::new();
    let (outcome, ended) = compare_all(judge.as_mut(), &pairs, &mut |done, note| {
        note.iter().for_each(warn);
        console.progress(&phase, done, pairs.len());
        match (signals::requests().stops(), &desk) {
            (false, _) => Ok(()),
            // The desk still returns the labels so far.
            (true, Some(desk)) => {
                desk.close("the labelling was stopped");
                Ok(())
            }
            (true, None) => Err(Error::Interrupted),
        }
    })
    .wait();
    console.clear();
    let ended = if signals::requests().stops() { ended.map_err(|_| Error::Interrupted) } else { ended };
    let counts = Counts::of(&outcome);
    if ended.is_ok() || counts.judged > counts.invalid {
        write_lines(plan.output.as_deref(), outcome.iter().map(row))?;
        summarise(&counts);
        let members: Vec<String> = judge.members().iter().map(|member| member.name()).collect();
        say_agreement(&outcome, &members);
    }
    ended
}

/// The prompt and the responses of a row, as strings.
fn texts(row: &Responses) -> Result<[&str; 3]> {
    let [first, second] = &row.responses;
    match (&row.prompt, first, second) {
        (Text::Plain(prompt), Text::Plain(first), Text::Plain(second)) => Ok([prompt, first, second]),
        _ => Err(row.place.error("holds conversations: oaif judge needs strings")),
    }
}

fn row(outcome: &PairOutcome) -> Value {
    match outcome {
        PairOutcome::Identical => {
            json!({"p_first": 0.5, "p_12": null, "p_21": null, "verdict": "tie", "why": "identical responses"})
        }
        PairOutcome::Judged(j) => {
            let verdict = &j.verdict;
            let mut row = json!({
                "p_first": verdict.p_first(), "p_12": j.p_12, "p_21": j.p_21, "verdict": verdict.label(),
            });
            if !j.votes.is_empty() {
                row["votes"] = json!(j.votes);
            }
            if let Verdict::Invalid { why } = verdict {
                row["why"] = json!(why);
            }
            row
        }
    }
}

fn summarise(counts: &Counts) {
    let decided = counts.judged - counts.tie - counts.invalid;
    if decided == 0 {
        return say(format_args!(
            "no pair was decided: {} tie(s), {} invalid, {} identical",
            counts.tie, counts.invalid, counts.identical
        ));
    }
    let (low, high) = wilson_interval(counts.first, decided);
    say(format_args!(
        "response 1 wins {} of {decided} decided pairs ({:.1} %, 95 % interval {:.1} to {:.1}); {} tie(s), {} invalid, \
         {} identical, {} order flip(s)",
        counts.first,
        100.0 * counts.first as f64 / decided as f64,
        100.0 * low,
        100.0 * high,
        counts.tie,
        counts.invalid,
        counts.identical,
        counts.order_flip
    ));
}

/// Prints the agreement of an ensemble's judges, and warnings about those without usable verdicts.
fn say_agreement(outcome: &[PairOutcome], members: &[String]) {
    let mut votes = Votes::default();
    for one in outcome {
        if let PairOutcome::Judged(judgement) = one {
            votes.add(&judgement.votes);
        }
    }
    if let Some(VotesReport { agreement, kappa }) = votes.report() {
        let kappa = kappa.map(|kappa| format!("; mean Cohen's κ of two judges {kappa:.2}"));
        say(format_args!(
            "the judges agree on {:.1} % of {} pairs{}",
            100.0 * agreement,
            votes.pairs(),
            kappa.unwrap_or_default()
        ));
    }
    for (_, text) in votes.mute("the ensemble", members, false) {
        warn(text);
    }
}
