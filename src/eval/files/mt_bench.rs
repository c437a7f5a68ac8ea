//! MT-Bench (`lm-sys/FastChat`, folder `fastchat/llm_judge`): JSON Lines.
//!
//! | file | keys of a row | seen in |
//! |---|---|---|
//! | `data/mt_bench/question.jsonl` | question_id, category, turns, reference (of some) | FastChat at commit 0e6d3e4 |
//! | `model_judgment/<judge>_pair.jsonl` | question_id, model_1, model_2, g1_winner, g2_winner, judge [name, prompt], turn | written by its `common.py`; a file in Stefanstud/FastChat |
//! | `model_judgment/<judge>_single.jsonl` | question_id, model, judge, score, turn | written by its `common.py`; a file in instructlab/eval |
//!
//! In game 1, the response of model_1 came first, in game 2 that of model_2. Winners are "model_1", "model_2", "tie" or
//! "error". A score of −1 means that the judge gave none.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::rows::{Row, kind, read};
use super::{EvalPrompt, JudgedAs, JudgementRecord};
use crate::error::Result;

/// Reads the first turns of the questions, with reference responses if there are any.
///
/// # Errors
/// [`crate::Error::Io`]; [`crate::Error::Row`] for a row that lacks a required key, or a duplicate question.
pub fn read_mt_bench_questions(path: impl AsRef<Path>) -> Result<Vec<EvalPrompt>> {
    let rows = read(path.as_ref())?;
    unique(&rows, ["question_id", "uid"])?;
    let prompt = |row: &Row| {
        let text = first_text(row, "turns", row.list("turns")?)?;
        let reference = match row.get("reference") {
            Some(Value::Array(reference)) => Some(first_text(row, "reference", reference)?),
            _ => None,
        };
        Ok(EvalPrompt { text, reference })
    };
    rows.iter().map(prompt).collect()
}

/// Rejects duplicate questions.
pub(super) fn unique(rows: &[Row], keys: [&str; 2]) -> Result<()> {
    let mut seen = HashSet::new();
    for row in rows {
        let id = row.id(keys)?;
        if !seen.insert(id.clone()) {
            return Err(row.error(format!("question {id} occurs twice: remove one")));
        }
    }
    Ok(())
}

/// A row of pairwise judgements, of model_1 against model_2 as the baseline.
///
/// FastChat counts a pair as a tie if the two games disagree, including a win with a tie. `Comparison` takes the mean
/// of the two, so that a win with a tie is a win.
pub(super) fn pair(row: &Row) -> Result<JudgementRecord> {
    let winner = |key: &str| match row.text(key)?.as_str() {
        "model_1" => Ok(Some(1.0)),
        "model_2" => Ok(Some(0.0)),
        "tie" => Ok(Some(0.5)),
        "error" => Ok(None),
        other => Err(row.error(format!("{key:?} is {other:?}: give model_1, model_2, tie or error"))),
    };
    Ok(JudgementRecord {
        judge: judge(row)?,
        model: row.text("model_1")?,
        baseline: Some(row.text("model_2")?),
        turn: turn(row)?,
        lengths: None,
        verdict: JudgedAs::BothOrders {
            model_first: winner("g1_winner")?,
            baseline_first: winner("g2_winner")?,
            strong: [false; 2],
        },
    })
}

/// A row with the score of a single response.
pub(super) fn score(row: &Row) -> Result<JudgementRecord> {
    let Some(score) = row.number("score")? else {
        return Err(row.error("no \"score\": give the judge's number, or -1 where it gave none"));
    };
    Ok(JudgementRecord {
        judge: judge(row)?,
        model: row.text("model")?,
        baseline: None,
        turn: turn(row)?,
        lengths: None,
        verdict: JudgedAs::Score((score >= 0.0).then_some(score)),
    })
}

/// `judge` is a name, or a list of a name and the name of a prompt.
fn judge(row: &Row) -> Result<Option<String>> {
    match row.get("judge") {
        Some(Value::Array(list)) => Ok(list.first().and_then(Value::as_str).map(str::to_owned)),
        _ => row.optional_text("judge"),
    }
}

fn turn(row: &Row) -> Result<usize> {
    match row.number("turn")? {
        None => Ok(1),
        Some(turn) if turn >= 1.0 && turn.fract() == 0.0 && turn < 1e6 => Ok(turn as usize),
        Some(turn) => Err(row.error(format!("\"turn\" is {turn}: give 1 or more"))),
    }
}

/// The first text of a list. It may be an object with its text in `content` (early Arena-Hard).
pub(super) fn first_text(row: &Row, key: &str, list: &[Value]) -> Result<String> {
    match list.first().map(|value| value.get("content").unwrap_or(value)) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(row.error(format!("{key:?} has {} in it: give texts", kind(other)))),
        None => Err(row.error(format!("{key:?} is empty: give one text per turn"))),
    }
}
