//! What an annotator says about a step's samples, and which two of each prompt are learnt from.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::health;
use crate::annotate::{
    Annotated, Annotator, Counts, Pair, Verdict, annotate_pairs, best_and_worst, round_robin,
};
use crate::error::{Error, Result};
use crate::generate::{FinishReason, Response};

/// Judged pairs from which on the share of unusable verdicts says something.
const MIN_JUDGED: usize = 16;
/// Waits before an annotator that works elsewhere is asked again after it has failed.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// The two samples of a prompt to learn from.
pub(super) struct Choice {
    pub chosen: usize,
    pub rejected: usize,
    /// The annotator's probability that the chosen one is better.
    pub probability: f32,
}

/// What the annotator said about a step's samples.
pub(super) struct Annotation {
    /// For each prompt its games: samples i, j and what became of them.
    games: Vec<Vec<(usize, usize, Annotated)>>,
    pub choices: Vec<Option<Choice>>,
    pub counts: Counts,
    /// How the annotator failed before it answered.
    pub failures: Vec<String>,
}

/// How often a failing annotator is asked.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    /// Whether its failures may be of the moment: it works elsewhere, and it has answered before.
    pub retry: bool,
    /// Set where nobody wants to wait any longer.
    pub interrupted: &'a AtomicBool,
}

/// [`annotate`], with as much patience.
pub(super) fn annotate_patiently(
    annotator: &mut dyn Annotator,
    prompts: &[&str],
    answers: &[Vec<Response>],
    k: usize,
    patience: Patience<'_>,
) -> Result<Annotation> {
    let mut waits = RETRY_AFTER.iter().filter(|_| patience.retry);
    let mut failures = Vec::new();
    loop {
        match (annotate(annotator, prompts, answers, k), waits.next()) {
            (Err(error @ Error::Annotator { .. }), Some(wait)) => {
                failures.push(error.to_string());
                let asked = Instant::now();
                while asked.elapsed() < *wait {
                    if patience.interrupted.load(Ordering::Relaxed) {
                        return Err(error);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            (result, _) => return result.map(|annotation| Annotation { failures, ..annotation }),
        }
    }
}

/// Lets every two of a prompt's `k` answers meet.
fn annotate(
    annotator: &mut dyn Annotator,
    prompts: &[&str],
    answers: &[Vec<Response>],
    k: usize,
) -> Result<Annotation> {
    let meetings = round_robin(k);
    let mut pairs = Vec::new();
    for (prompt, samples) in prompts.iter().zip(answers) {
        for (i, j) in &meetings {
            let (response_1, response_2) = (samples[*i].text.as_str(), samples[*j].text.as_str());
            pairs.push(Pair { prompt, response_1, response_2 });
        }
    }
    let annotated = annotate_pairs(annotator, &pairs)?;
    let counts = Counts::of(&annotated);
    let mut annotated = annotated.into_iter();
    let games: Vec<Vec<_>> = prompts
        .iter()
        .map(|_| meetings.iter().map(|(i, j)| (*i, *j, annotated.next().expect("one a pair"))).collect())
        .collect();
    let choices = games.iter().map(|games| choose(k, games)).collect();
    Ok(Annotation { games, choices, counts, failures: Vec::new() })
}

/// Best against worst; for two samples, the preferred against the other.
fn choose(k: usize, games: &[(usize, usize, Annotated)]) -> Option<Choice> {
    let verdicts: Vec<(usize, usize, Verdict)> =
        games.iter().map(|(i, j, a)| (*i, *j, a.verdict())).collect();
    let (chosen, rejected) = best_and_worst(k, &verdicts)?;
    // How probably a sample wins a game, over its games with a usable verdict.
    let strength = |sample: usize| {
        let wins = verdicts.iter().filter_map(|(i, j, verdict)| match verdict.p_first()? {
            p if *i == sample => Some(p),
            p if *j == sample => Some(1.0 - p),
            _ => None,
        });
        let wins: Vec<f32> = wins.collect();
        wins.iter().sum::<f32>() / wins.len().max(1) as f32
    };
    // For two samples this is the annotator's own probability.
    let probability = (0.5 + 0.5 * (strength(chosen) - strength(rejected))).clamp(0.5, 1.0);
    Some(Choice { chosen, rejected, probability })
}

impl Annotation {
    /// Rows for `pairs.jsonl`: every pair that was met, and whether it was learnt from.
    pub fn rows(&self, step: usize, prompts: &[&str], answers: &[Vec<Response>]) -> Vec<Value> {
        let mut out = Vec::new();
        for (p, games) in self.games.iter().enumerate() {
            for (i, j, annotated) in games {
                let mut row = json!({
                    "step": step,
                    "prompt": prompts[p],
                    "response_1": answers[p][*i].text,
                    "response_2": answers[p][*j].text,
                });
                match annotated {
                    Annotated::Judged(judgement) => {
                        row["p_first"] = json!(judgement.verdict.p_first());
                        row["p_12"] = json!(judgement.p_12);
                        row["p_21"] = json!(judgement.p_21);
                        row["verdict"] = json!(judgement.verdict.label());
                        if let Verdict::Invalid { why } = &judgement.verdict {
                            row["skipped"] = json!(why);
                        }
                    }
                    Annotated::Identical => row["skipped"] = json!("identical responses"),
                }
                let choice = self.choices[p].as_ref();
                let learnt =
                    choice.filter(|c| [c.chosen.min(c.rejected), c.chosen.max(c.rejected)] == [*i, *j]);
                row["chosen"] = json!(learnt.map(|c| if c.chosen == *i { 1 } else { 2 }));
                out.push(row);
            }
        }
        out
    }

    fn first_invalid(&self) -> Option<&str> {
        self.games.iter().flatten().find_map(|(_, _, a)| match a {
            Annotated::Judged(j) => match &j.verdict {
                Verdict::Invalid { why } => Some(why.as_str()),
                _ => None,
            },
            Annotated::Identical => None,
        })
    }

    /// For `metrics.jsonl`.
    pub fn metrics(&self) -> Map<String, Value> {
        let counts = &self.counts;
        let learnt = self.choices.iter().flatten();
        let mean = |of: fn(f64) -> f64| {
            let n = learnt.clone().count();
            (n > 0).then(|| learnt.clone().map(|c| of(c.probability as f64)).sum::<f64>() / n as f64)
        };
        let all = [
            ("judge/judged", json!(counts.judged)),
            ("judge/first", json!(counts.first_ratio())),
            ("judge/tie", json!(counts.tie)),
            ("judge/invalid", json!(counts.invalid)),
            ("judge/identical", json!(counts.identical)),
            ("judge/order_flip", json!(counts.order_flip)),
            ("judge/learnt", json!(learnt.clone().count())),
            // The annotator's probability for the chosen answer, and how far it is ahead of the other's.
            ("objective/scores", json!(mean(|p| p))),
            ("objective/scores_margin", json!(mean(|p| 2.0 * p - 1.0))),
        ];
        all.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
    }
}

/// Verdicts and answers of the run so far; they survive a resume.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerdictTotals {
    counts: Counts,
    /// Of the last steps, as many as it takes for 16 judged pairs.
    recent: VecDeque<Recent>,
    answers: usize,
    /// Answers that ended by themselves or by a stop text.
    ended: usize,
}

/// What a step's verdicts were.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recent {
    judged: usize,
    invalid: usize,
}

impl VerdictTotals {
    pub fn add(&mut self, counts: &Counts, answers: &[Vec<Response>]) {
        self.counts += *counts;
        self.recent.push_back(Recent { judged: counts.judged, invalid: counts.invalid });
        while self.recent.iter().skip(1).map(|step| step.judged).sum::<usize>() >= MIN_JUDGED {
            self.recent.pop_front();
        }
        let all = answers.iter().flatten();
        self.answers += all.clone().count();
        self.ended += all.filter(|answer| answer.finish_reason != FinishReason::Length).count();
    }

    /// Ends a run whose annotator gives too few usable verdicts: of all, or of late none.
    pub fn check(&self, limit: f64, name: &str, last: &Annotation) -> Result<()> {
        let sum = |of: fn(&Recent) -> usize| self.recent.iter().map(of).sum::<usize>();
        let recent = (sum(|step| step.invalid), sum(|step| step.judged));
        let total = (self.counts.invalid, self.counts.judged);
        let mute = limit < 1.0 && recent.1 >= MIN_JUDGED && recent.0 == recent.1;
        let mostly = total.1 >= MIN_JUDGED && self.counts.invalid_ratio() > limit;
        let reason = last.first_invalid().unwrap_or("none in this step");
        let why = match (mostly, mute) {
            (true, _) => format!(
                "{} of {} verdicts were unusable, above the max-invalid-ratio of {limit}; the last reason: {reason}",
                total.0, total.1
            ),
            (false, true) => {
                format!("the last {} verdicts were all unusable; the last reason: {reason}", recent.1)
            }
            (false, false) => return Ok(()),
        };
        Err(Error::Annotator { name: name.into(), why })
    }

    /// Whether the annotator has ever answered.
    pub fn any(&self) -> bool {
        self.counts.judged > 0
    }

    /// What the user should know of the annotator.
    pub fn position_bias(&self) -> Option<String> {
        health::position_bias(&self.counts)
    }

    /// What the user should know of the answers.
    pub fn endless(&self, max_new_tokens: usize) -> Option<String> {
        health::endless(self.answers, self.ended, max_new_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(judged: usize, invalid: usize) -> Annotation {
        let counts = Counts { judged, invalid, ..Counts::default() };
        Annotation { games: Vec::new(), choices: Vec::new(), counts, failures: Vec::new() }
    }

    /// After how many of these steps the run ends.
    fn ends_after(limit: f64, steps: impl IntoIterator<Item = (usize, usize)>) -> Option<usize> {
        let mut totals = VerdictTotals::default();
        steps.into_iter().position(|(judged, invalid)| {
            let annotation = step(judged, invalid);
            totals.add(&annotation.counts, &[]);
            totals.check(limit, "judge", &annotation).is_err()
        })
    }

    #[test]
    fn an_annotator_that_falls_silent_ends_the_run_within_a_few_steps() {
        let good = [(4, 0); 30];
        assert_eq!(ends_after(0.5, good.into_iter().chain([(4, 4); 10])), Some(33));
        assert_eq!(ends_after(0.5, good.into_iter().chain([(32, 32); 10])), Some(30));
        assert_eq!(ends_after(1.0, good.into_iter().chain([(4, 4); 10])), None);
        // Now and then one is unusable: nothing to end a run for.
        assert_eq!(ends_after(0.5, (0..1000).map(|i| (4, if i % 4 == 3 { 4 } else { 1 }))), None);
    }
}
