//! Prompts, answers and judgements from the files of AlpacaEval, MT-Bench and Arena-Hard, in one type.
//!
//! Unknown keys are ignored, so that files of other versions and of programs that add to them read too; a row without what
//! it needs is an error that names its line.

mod alpaca_eval;
mod arena_hard;
mod mt_bench;
mod rows;

pub use alpaca_eval::{read_alpaca_annotations, read_alpaca_outputs};
pub use arena_hard::{
    ARENA_HARD_STRONG_WEIGHT, arena_hard_win_rate, read_arena_hard_answers, read_arena_hard_judgements,
    read_arena_hard_questions,
};
pub use mt_bench::{
    read_mt_bench_answers, read_mt_bench_pairs, read_mt_bench_questions, read_mt_bench_scores,
};

use std::collections::HashMap;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::comparison::Comparison;

/// Prompts in the order of the file that told them first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EvalSet {
    /// The prompts; ids are unique.
    pub prompts: Vec<EvalPrompt>,
}

/// A prompt with what is known about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EvalPrompt {
    /// `question_id` or `uid`; for AlpacaEval, whose rows have no id, the row's position counted from 0.
    pub id: String,
    /// `dataset` of AlpacaEval, `category` of the others.
    pub category: Option<String>,
    /// The user's turns, one unless the prompt is a conversation; empty while only answers or judgements were read.
    pub turns: Vec<String>,
    /// Answers of models; a reference answer is that of the model "reference".
    pub answers: Vec<ModelAnswer>,
    /// What judges said.
    pub judgements: Vec<JudgementRecord>,
}

/// A model's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelAnswer {
    /// The model.
    pub model: String,
    /// Its text for each turn of the user.
    pub turns: Vec<String>,
}

/// What a judge said about a model's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgementRecord {
    /// The judge, where the file names it.
    pub judge: Option<String>,
    /// The model judged.
    pub model: String,
    /// The turn judged, counted from 1.
    pub turn: usize,
    /// What it said.
    pub verdict: JudgedAs,
}

/// The forms of a judgement. Preferences are of the model over the baseline, in [0, 1]; nothing where the judge's text had
/// no usable verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgedAs {
    /// Compared once, in an order that the file does not tell (AlpacaEval draws it by chance).
    Once {
        /// The model compared with.
        baseline: String,
        /// Preference for the model.
        preference: Option<f64>,
    },
    /// Compared in both orders.
    BothOrders {
        /// The model compared with, where the file names it.
        baseline: Option<String>,
        /// Preference for the model when its answer came first.
        model_first: Option<f64>,
        /// Preference for the model when the baseline's answer came first.
        baseline_first: Option<f64>,
        /// Whether each of the two verdicts was a strong one (Arena-Hard's A>>B and B>>A), in the same order.
        strong: [bool; 2],
    },
    /// Given a score alone; MT-Bench's is 1 to 10.
    Score(Option<f64>),
}

impl JudgementRecord {
    /// The judgement as an outcome of model against baseline, whose answers have the lengths given; nothing for a score.
    pub fn outcome(&self, model_length: f64, baseline_length: f64) -> Option<Result<Comparison>> {
        match &self.verdict {
            JudgedAs::Once { preference, .. } => {
                Some(Comparison::single(*preference, model_length, baseline_length))
            }
            JudgedAs::BothOrders { model_first, baseline_first, .. } => {
                Some(Comparison::both_orders(*model_first, *baseline_first, model_length, baseline_length))
            }
            JudgedAs::Score(_) => None,
        }
    }
}

impl EvalPrompt {
    /// The answer of `model`, if known.
    pub fn answer(&self, model: &str) -> Option<&ModelAnswer> {
        self.answers.iter().find(|a| a.model == model)
    }
}

impl EvalSet {
    /// Adds what `other` knows about the same prompts, and its other prompts at the end. A second answer of a model to a
    /// prompt takes the place of the first (FastChat appends a repeated run); judgements are all kept.
    ///
    /// An error when a prompt has one text here and another in `other`: then the files are of different benchmarks.
    pub fn merge(&mut self, other: EvalSet) -> Result<()> {
        let mut places: HashMap<String, usize> =
            self.prompts.iter().enumerate().map(|(i, p)| (p.id.clone(), i)).collect();
        for prompt in other.prompts {
            let Some(&place) = places.get(&prompt.id) else {
                places.insert(prompt.id.clone(), self.prompts.len());
                self.prompts.push(prompt);
                continue;
            };
            let known = &mut self.prompts[place];
            if known.turns.is_empty() {
                known.turns = prompt.turns;
            } else if !prompt.turns.is_empty() && !same_text(&known.turns, &prompt.turns) {
                return Err(Error::config(
                    "files",
                    format!(
                        "prompt {} has another text in each: give files of one benchmark and version",
                        prompt.id
                    ),
                ));
            }
            known.category = known.category.take().or(prompt.category);
            for answer in prompt.answers {
                known.set_answer(answer);
            }
            known.judgements.extend(prompt.judgements);
        }
        Ok(())
    }

    /// The prompt `id`, new at the end if it is not there yet.
    fn prompt(&mut self, places: &mut HashMap<String, usize>, id: String) -> &mut EvalPrompt {
        let place = *places.entry(id.clone()).or_insert_with(|| {
            self.prompts.push(EvalPrompt { id, ..EvalPrompt::default() });
            self.prompts.len() - 1
        });
        &mut self.prompts[place]
    }
}

impl EvalPrompt {
    fn set_answer(&mut self, answer: ModelAnswer) {
        match self.answers.iter_mut().find(|a| a.model == answer.model) {
            Some(known) => *known = answer,
            None => self.answers.push(answer),
        }
    }
}

/// Whether two prompts are the same up to white space at their ends; a conversation may be told up to its first turns only.
fn same_text(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.trim() == b.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(id: &str, text: &str) -> EvalPrompt {
        EvalPrompt { id: id.into(), turns: vec![text.into()], ..EvalPrompt::default() }
    }

    #[test]
    fn merging_joins_by_id_and_refuses_another_text() {
        let mut set = EvalSet { prompts: vec![prompt("1", "Why?")] };
        let answered = |text: &str| {
            let answers = vec![ModelAnswer { model: "m".into(), turns: vec![text.into()] }];
            EvalSet { prompts: vec![EvalPrompt { id: "1".into(), answers, ..EvalPrompt::default() }] }
        };
        set.merge(answered("old")).unwrap();
        set.merge(answered("new")).unwrap();
        set.merge(EvalSet { prompts: vec![prompt("2", "How?")] }).unwrap();
        assert_eq!((set.prompts.len(), set.prompts[0].answers.len()), (2, 1));
        assert_eq!(set.prompts[0].answer("m").unwrap().turns, ["new"]);
        let error = set.merge(EvalSet { prompts: vec![prompt("2", "Where?")] }).unwrap_err().to_string();
        assert!(error.contains("prompt 2"), "{error}");
    }
}
