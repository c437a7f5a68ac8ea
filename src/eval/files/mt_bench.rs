//! MT-Bench (`lm-sys/FastChat`, folder `fastchat/llm_judge`): JSON Lines.
//!
//! | file | keys of a row | seen in |
//! |---|---|---|
//! | `data/mt_bench/question.jsonl` | question_id, category, turns, reference (of some) | FastChat at commit 0e6d3e4 |
//! | `model_answer/<model>.jsonl`, `reference_answer/gpt-4.jsonl` | question_id, model_id, choices[0].turns | the same |
//! | `model_judgment/<judge>_pair.jsonl` | question_id, model_1, model_2, g1_winner, g2_winner, judge [name, prompt], turn | written by its `common.py`; a file in Stefanstud/FastChat |
//! | `model_judgment/<judge>_single.jsonl` | question_id, model, judge, score, turn | written by its `common.py`; a file in instructlab/eval |
//!
//! In game 1 the answer of model_1 came first, in game 2 that of model_2; winners are "model_1", "model_2", "tie" or
//! "error". A score of −1 says that the judge gave none.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::rows::{Row, kind, read};
use super::{EvalSet, JudgedAs, JudgementRecord, ModelAnswer};
use crate::error::Result;

/// Reads the questions, with reference answers where there are any (as answers of the model "reference").
pub fn read_mt_bench_questions(path: impl AsRef<Path>) -> Result<EvalSet> {
    let (mut set, mut places) = (EvalSet::default(), HashMap::new());
    for row in read(path.as_ref())? {
        let id = row.id(["question_id", "uid"])?;
        if places.contains_key(&id) {
            return Err(row.error(format!("question {id} is there twice: remove one")));
        }
        let turns = texts(&row, "turns", row.list("turns")?)?;
        let category = row.optional_text("category")?;
        let prompt = set.prompt(&mut places, id);
        prompt.turns = turns;
        prompt.category = category;
        if let Some(Value::Array(reference)) = row.get("reference") {
            prompt.set_answer(ModelAnswer {
                model: "reference".into(),
                turns: texts(&row, "reference", reference)?,
            });
        }
    }
    Ok(set)
}

/// Reads a model's answers, the first choice of each.
pub fn read_mt_bench_answers(path: impl AsRef<Path>) -> Result<EvalSet> {
    let (mut set, mut places) = (EvalSet::default(), HashMap::new());
    for row in read(path.as_ref())? {
        let model = row.text("model_id")?;
        let turns =
            row.list("choices")?.first().and_then(|choice| choice.get("turns")).and_then(Value::as_array);
        let Some(turns) = turns else {
            return Err(row.error("no \"turns\" in the first of \"choices\": give [{\"turns\": [\"…\"]}]"));
        };
        let turns = texts(&row, "turns", turns)?;
        set.prompt(&mut places, row.id(["question_id", "uid"])?).set_answer(ModelAnswer { model, turns });
    }
    Ok(set)
}

/// Reads pairwise judgements, of model_1 against model_2 as the baseline.
///
/// FastChat calls a pair of which the two games disagree a tie, also a win with a tie; `Comparison` takes the mean of the two,
/// by which a win with a tie is a win.
pub fn read_mt_bench_pairs(path: impl AsRef<Path>) -> Result<EvalSet> {
    let (mut set, mut places) = (EvalSet::default(), HashMap::new());
    for row in read(path.as_ref())? {
        let winner = |key: &str| match row.text(key)?.as_str() {
            "model_1" => Ok(Some(1.0)),
            "model_2" => Ok(Some(0.0)),
            "tie" => Ok(Some(0.5)),
            "error" => Ok(None),
            other => Err(row.error(format!("{key:?} is {other:?}: give model_1, model_2, tie or error"))),
        };
        let judgement = JudgementRecord {
            judge: judge(&row)?,
            model: row.text("model_1")?,
            turn: turn(&row)?,
            verdict: JudgedAs::BothOrders {
                baseline: Some(row.text("model_2")?),
                model_first: winner("g1_winner")?,
                baseline_first: winner("g2_winner")?,
                strong: [false; 2],
            },
        };
        set.prompt(&mut places, row.id(["question_id", "uid"])?).judgements.push(judgement);
    }
    Ok(set)
}

/// Reads scores of single answers.
pub fn read_mt_bench_scores(path: impl AsRef<Path>) -> Result<EvalSet> {
    let (mut set, mut places) = (EvalSet::default(), HashMap::new());
    for row in read(path.as_ref())? {
        let Some(score) = row.number("score")? else {
            return Err(row.error("no \"score\": give the judge's number, or -1 where it gave none"));
        };
        let judgement = JudgementRecord {
            judge: judge(&row)?,
            model: row.text("model")?,
            turn: turn(&row)?,
            verdict: JudgedAs::Score((score >= 0.0).then_some(score)),
        };
        set.prompt(&mut places, row.id(["question_id", "uid"])?).judgements.push(judgement);
    }
    Ok(set)
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

/// Texts of a list; an element may be an object with its text in `content` (early Arena-Hard).
pub(super) fn texts(row: &Row, key: &str, list: &[Value]) -> Result<Vec<String>> {
    if list.is_empty() {
        return Err(row.error(format!("{key:?} is empty: give one text a turn")));
    }
    list.iter()
        .map(|value| match value.get("content").unwrap_or(value) {
            Value::String(text) => Ok(text.clone()),
            other => Err(row.error(format!("{key:?} has {} in it: give texts", kind(other)))),
        })
        .collect()
}
