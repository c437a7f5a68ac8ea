//! Prompts and judgements from the files of AlpacaEval, MT-Bench and Arena-Hard.
//!
//! Unknown keys are ignored, so that files of other versions, or with additional keys, can be read. A row that lacks a
//! required key is an error with its line.

mod alpaca_eval;
mod arena_hard;
mod mt_bench;
mod rows;

pub use alpaca_eval::{AlpacaAnchors, read_alpaca_anchors, read_alpaca_outputs};
pub use arena_hard::{ARENA_HARD_STRONG_WEIGHT, arena_hard_win_rate, read_arena_hard_questions};
pub use mt_bench::read_mt_bench_questions;

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::comparison::Comparison;

/// A prompt of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalPrompt {
    /// The user's first turn.
    pub text: String,
    /// The reference response in the file.
    pub reference: Option<String>,
}

/// The kinds of files with judgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Benchmark {
    /// AlpacaEval's `annotations.json`.
    AlpacaEval,
    /// MT-Bench's `<judge>_pair.jsonl`.
    MtBenchPairs,
    /// MT-Bench's `<judge>_single.jsonl`.
    MtBenchScores,
    /// Arena-Hard's `model_judgment/<judge>/<model>.jsonl`.
    ArenaHard,
}

/// A file of judgements.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgements {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The rows, in order.
    pub records: Vec<JudgementRecord>,
}

/// A judge's verdict on a model's response.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgementRecord {
    /// The judge, if the file names it.
    pub judge: Option<String>,
    /// The model judged.
    pub model: String,
    /// The model it was compared with, if it was and the file names it.
    pub baseline: Option<String>,
    /// The turn judged, counted from 1.
    pub turn: usize,
    /// Characters of the model's response and of the baseline's, if the file has the responses.
    pub lengths: Option<[f64; 2]>,
    /// The verdict.
    pub verdict: JudgedAs,
}

/// The forms of a judgement. Preferences are of the model over the baseline, in [0, 1]; `None` if the judge gave no
/// usable verdict.
#[derive(Clone, Debug, PartialEq)]
pub enum JudgedAs {
    /// Compared once, in an order that the file does not record (AlpacaEval draws it at random).
    Once(Option<f64>),
    /// Compared in both orders.
    BothOrders {
        /// Preference for the model when its response came first.
        model_first: Option<f64>,
        /// Preference for the model when the baseline's response came first.
        baseline_first: Option<f64>,
        /// Whether each of the two verdicts was strong (Arena-Hard's A>>B and B>>A), in the same order.
        strong: [bool; 2],
    },
    /// A score without a comparison; MT-Bench's is 1 to 10.
    Score(Option<f64>),
}

impl JudgementRecord {
    /// The outcome of model against baseline, with lengths of 0 if they are not known; `None` for a score.
    ///
    /// # Errors
    /// As [`Comparison::single`].
    pub fn outcome(&self) -> Result<Option<Comparison>> {
        let [model, baseline] = self.lengths.unwrap_or_default();
        match self.verdict {
            JudgedAs::Once(preference) => Comparison::single(preference, model, baseline).map(Some),
            JudgedAs::BothOrders { model_first, baseline_first, .. } => {
                Comparison::both_orders(model_first, baseline_first, model, baseline).map(Some)
            }
            JudgedAs::Score(_) => Ok(None),
        }
    }
}

/// Reads a file of judgements of any of the benchmarks, detected from its first row.
///
/// # Errors
/// [`Error::Io`]; [`Error::Row`] for a row that lacks a required key; [`Error::File`] for another kind of file.
pub fn read_judgements(path: &Path) -> Result<Judgements> {
    let rows = rows::read(path)?;
    let has = |key: &str| rows[0].keys.contains_key(key);
    let (benchmark, record): (_, fn(&rows::Row) -> Result<JudgementRecord>) = match () {
        () if has("output_1") => (Benchmark::AlpacaEval, alpaca_eval::judging),
        () if has("g1_winner") => (Benchmark::MtBenchPairs, mt_bench::pair),
        () if has("games") => (Benchmark::ArenaHard, arena_hard::judgement),
        () if has("score") => (Benchmark::MtBenchScores, mt_bench::score),
        () => {
            let why = "has no judgements of AlpacaEval (output_1, output_2, preference), MT-Bench (g1_winner, g2_winner, or \
                       score) or Arena-Hard (games)";
            return Err(Error::file(path, why));
        }
    };
    Ok(Judgements { benchmark, records: rows.iter().map(record).collect::<Result<_>>()? })
}
