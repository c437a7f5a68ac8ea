//! Arena-Hard (`lmarena/arena-hard-auto`): JSON Lines.
//!
//! | file | keys of a row | seen in |
//! |---|---|---|
//! | `data/arena-hard-v0.1/question.jsonl`, `…-v2.0/…` | uid, category, prompt | commit 196f6b8 |
//! | early `question.jsonl` | question_id, category, turns | commit 084ebaa |
//! | `model_judgment/<judge>/<model>.jsonl` | uid, judge, model, baseline, games [{score}, {score}] | written by its `gen_judgment.py`; a file in neuralmagic/arena-hard-auto |
//!
//! In the first game, A is the baseline and B the model; in the second, A is the model. A score is "A>>B", "A>B",
//! "A=B", "B>A", "B>>A" or one of these reversed ("B<A"); null, or a game that is null, if the judge gave none.

use std::path::Path;

use serde_json::Value;

use super::mt_bench::{first_text, unique};
use super::rows::{Row, read};
use super::{EvalPrompt, JudgedAs, JudgementRecord};
use crate::error::Result;

/// The weight of a strong verdict (A>>B) in Arena-Hard's win rate.
pub const ARENA_HARD_STRONG_WEIGHT: f64 = 3.0;

/// Reads the questions of any version.
///
/// # Errors
/// [`crate::Error::Io`]; [`crate::Error::Row`] for a row that lacks a required key, or a duplicate question.
pub fn read_arena_hard_questions(path: impl AsRef<Path>) -> Result<Vec<EvalPrompt>> {
    let rows = read(path.as_ref())?;
    unique(&rows, ["uid", "question_id"])?;
    let prompt = |row: &Row| {
        let text = match row.get("turns") {
            Some(_) => first_text(row, "turns", row.list("turns")?)?,
            None => row.optional_text("prompt")?.ok_or_else(|| {
                row.error("no \"prompt\" and no \"turns\": add the question's text as \"prompt\"")
            })?,
        };
        Ok(EvalPrompt { text, reference: None })
    };
    rows.iter().map(prompt).collect()
}

/// A row of judgements. A strong verdict is one win, like a plain one, and is marked `strong`.
pub(super) fn judgement(row: &Row) -> Result<JudgementRecord> {
    let games = row.list("games")?;
    let [first, second] = games.as_slice() else {
        return Err(
            row.error(format!("{} games: give two, the second with the responses swapped", games.len()))
        );
    };
    let baseline_first = score(row, first)?.map(|(of_a, strong)| (1.0 - of_a, strong));
    let model_first = score(row, second)?;
    Ok(JudgementRecord {
        judge: row.optional_text("judge")?,
        model: row.text("model")?,
        baseline: row.optional_text("baseline")?,
        turn: 1,
        lengths: None,
        verdict: JudgedAs::BothOrders {
            model_first: model_first.map(|v| v.0),
            baseline_first: baseline_first.map(|v| v.0),
            strong: [model_first.is_some_and(|v| v.1), baseline_first.is_some_and(|v| v.1)],
        },
    })
}

/// The preference for A (1, ½ or 0) and whether it is strong.
fn score(row: &Row, game: &Value) -> Result<Option<(f64, bool)>> {
    let score = match game {
        Value::Null => return Ok(None),
        game => game.get("score"),
    };
    match score {
        Some(Value::Null) => Ok(None),
        Some(Value::String(score)) => match score.trim() {
            "A>>B" | "B<<A" => Ok(Some((1.0, true))),
            "A>B" | "B<A" => Ok(Some((1.0, false))),
            "A=B" | "B=A" => Ok(Some((0.5, false))),
            "B>A" | "A<B" => Ok(Some((0.0, false))),
            "B>>A" | "A<<B" => Ok(Some((0.0, true))),
            other => {
                Err(row.error(format!("a game's score is {other:?}: give A>>B, A>B, A=B, B>A, B>>A or null")))
            }
        },
        _ => Err(row.error("a game without a \"score\": give A>>B, A>B, A=B, B>A, B>>A or null")),
    }
}

/// Arena-Hard's score of a model as a share: the mean over both games of all prompts, in which a strong verdict counts
/// [`ARENA_HARD_STRONG_WEIGHT`] times. Prompts that lack a verdict in one of the games are left out. `None` if none is
/// left.
///
/// This is the mean that its `show_result.py` resamples. The official table also corrects for style, which is not done
/// here.
pub fn arena_hard_win_rate<'a>(judgements: impl IntoIterator<Item = &'a JudgementRecord>) -> Option<f64> {
    let (mut wins, mut total) = (0.0, 0.0);
    for judgement in judgements {
        if let JudgedAs::BothOrders { model_first: Some(x), baseline_first: Some(y), strong, .. } =
            &judgement.verdict
        {
            for (preference, strong) in [(x, strong[0]), (y, strong[1])] {
                let weight = if strong { ARENA_HARD_STRONG_WEIGHT } else { 1.0 };
                wins += weight * preference;
                total += weight;
            }
        }
    }
    (total > 0.0).then(|| wins / total)
}
