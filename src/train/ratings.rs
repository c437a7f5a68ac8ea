//! The judge's ratings of single responses of a step.

use std::collections::HashMap;

use super::report::{JudgeReport, RatingReport, UsageReport};
use crate::generate::Response;
use crate::judge::queue::{Answer, Ask, Question, Said, Usage};
use crate::judge::{Counts, Score};

/// The ratings of a step: for each prompt, one for each distinct response.
pub(super) struct Ratings {
    /// For each prompt and response the score, once it is known.
    of: Vec<Vec<Option<Score>>>,
    /// For each prompt and response the index of the first response with the same text.
    first: Vec<Vec<usize>>,
    /// The open questions by their ids: prompt and response.
    open: HashMap<String, (usize, usize, Question)>,
    /// Wall-clock time of the judge for the answered questions, in milliseconds.
    ms: f64,
}

impl Ratings {
    /// Creates the questions about the responses to these prompts. `draws` are the draw numbers of the prompts.
    pub fn new(draws: &[u64], prompts: &[String], answers: &[Vec<Response>]) -> Ratings {
        let mut ratings = Ratings { of: Vec::new(), first: Vec::new(), open: HashMap::new(), ms: 0.0 };
        for ((p, prompt), samples) in prompts.iter().enumerate().zip(answers) {
            let same = |sample: &Response| samples.iter().position(|other| other.text == sample.text);
            let firsts: Vec<usize> = samples.iter().filter_map(same).collect();
            for (i, sample) in samples.iter().enumerate().filter(|(i, _)| firsts[*i] == *i) {
                let ask = Ask::Rate { response: sample.text.clone() };
                let question = Question::new(&format!("{}-{i}", draws[p]), prompt, ask);
                ratings.open.insert(question.id.clone(), (p, i, question));
            }
            ratings.of.push(vec![None; samples.len()]);
            ratings.first.push(firsts);
        }
        ratings
    }

    /// The open questions, in the order of the responses.
    pub fn questions(&self) -> Vec<Question> {
        let mut open: Vec<&(usize, usize, Question)> = self.open.values().collect();
        open.sort_by_key(|(p, i, _)| (*p, *i));
        open.into_iter().map(|(_, _, question)| question.clone()).collect()
    }

    /// Takes an answer. Returns whether it belongs to one of these questions.
    pub fn take(&mut self, answer: &Answer) -> bool {
        let Some((p, i, _)) = self.open.remove(&answer.id) else { return false };
        let Said::Score(score) = &answer.said else { unreachable!("a rating was asked for") };
        for (sample, first) in self.first[p].iter().enumerate() {
            if *first == i {
                self.of[p][sample] = Some(score.clone());
            }
        }
        self.ms += answer.ms;
        true
    }

    /// Whether every question is answered.
    pub fn are_over(&self) -> bool {
        self.open.is_empty()
    }

    /// The usable scores.
    pub fn scores(&self) -> Vec<Vec<Option<f64>>> {
        let score = |score: &Option<Score>| match score {
            Some(Score::Value(value)) => Some(f64::from(*value)),
            _ => None,
        };
        self.of.iter().map(|scores| scores.iter().map(score).collect()).collect()
    }

    /// The numbers of rated, unusable and identical responses.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (scores, firsts) in self.of.iter().zip(&self.first) {
            for (i, score) in scores.iter().enumerate() {
                if firsts[i] != i {
                    counts.identical += 1;
                    continue;
                }
                counts.judged += 1;
                counts.invalid += usize::from(matches!(score, Some(Score::Invalid { .. })));
            }
        }
        counts
    }

    /// The reason of the first unusable score.
    pub fn first_invalid(&self) -> Option<&str> {
        self.of.iter().flatten().find_map(|score| match score {
            Some(Score::Invalid { why }) => Some(why.as_str()),
            _ => None,
        })
    }

    /// The report for `metrics.jsonl`.
    pub fn report(&self, learnt: usize, off_policy_steps: usize, used: Usage) -> JudgeReport {
        let counts = self.counts();
        let known: Vec<f64> = self.scores().into_iter().flatten().flatten().collect();
        JudgeReport {
            judged: counts.judged,
            invalid: counts.invalid,
            identical: counts.identical,
            learnt,
            latency_ms: self.ms / counts.judged.max(1) as f64,
            off_policy_steps,
            scores: (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64),
            used: UsageReport::of(used),
            ..JudgeReport::default()
        }
    }

    /// All ratings, with the advantages computed from them.
    pub fn rows(
        &self,
        step: usize,
        policy_step: usize,
        prompts: &[String],
        answers: &[Vec<Response>],
        advantages: &[Vec<f64>],
    ) -> Vec<RatingReport> {
        let mut out = Vec::new();
        for (p, scores) in self.of.iter().enumerate() {
            for (i, score) in scores.iter().enumerate() {
                let (score, skipped) = match score {
                    Some(Score::Value(value)) => (Some(*value), None),
                    Some(Score::Invalid { why }) => (None, Some(why.clone())),
                    None => (None, None),
                };
                out.push(RatingReport {
                    step,
                    policy_step,
                    prompt: prompts[p].clone(),
                    response: answers[p][i].text.clone(),
                    score,
                    advantage: advantages[p][i],
                    skipped,
                });
            }
        }
        out
    }
}
