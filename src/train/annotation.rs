//! What an annotator says about a step's samples, and which two of each prompt are learnt from.

use serde_json::{Map, Value, json};

use crate::annotate::{
    Annotated, Annotator, Counts, Pair, Verdict, annotate_pairs, best_and_worst, round_robin,
};
use crate::error::{Error, Result};
use crate::generate::Response;

/// Judged pairs from which on the share of unusable verdicts says something.
const MIN_JUDGED: usize = 16;

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
}

/// Lets every two of a prompt's `k` answers meet.
pub(super) fn annotate(
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
    Ok(Annotation { games, choices, counts })
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

/// Verdicts of the run so far; they survive a resume.
pub(super) struct VerdictTotals {
    judged: usize,
    invalid: usize,
}

impl VerdictTotals {
    pub fn restore(state: &Map<String, Value>) -> VerdictTotals {
        let number = |key: &str| state.get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
        VerdictTotals { judged: number("judged"), invalid: number("invalid") }
    }

    pub fn save(&self) -> Map<String, Value> {
        Map::from_iter([
            ("judged".to_owned(), json!(self.judged)),
            ("invalid".to_owned(), json!(self.invalid)),
        ])
    }

    pub fn add(&mut self, counts: &Counts) {
        self.judged += counts.judged;
        self.invalid += counts.invalid;
    }

    pub fn check(&self, limit: f64, name: &str, last: &Annotation) -> Result<()> {
        let ratio = self.invalid as f64 / self.judged.max(1) as f64;
        if self.judged < MIN_JUDGED || ratio <= limit {
            return Ok(());
        }
        let why = format!(
            "{} of {} verdicts were unusable, above --max-invalid-ratio {limit}; the last reason: {}",
            self.invalid,
            self.judged,
            last.first_invalid().unwrap_or("none in this step")
        );
        Err(Error::Annotator { name: name.into(), why })
    }
}
