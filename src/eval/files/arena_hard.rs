//! Arena-Hard (`lmarena/arena-hard-auto`): JSON Lines.
//!
//! | file | keys of a row | seen in |
//! |---|---|---|
//! | `data/arena-hard-v0.1/question.jsonl`, `…-v2.0/…` | uid, category, prompt | commit 196f6b8 |
//! | early `question.jsonl` | question_id, category, turns | commit 084ebaa |
//! | `model_answer/<model>.jsonl` | uid, model, messages [{role, content: text or {answer}}] | commit 196f6b8 |
//! | early `model_answer` | question_id, model_id, choices[0].turns [text or {content}] | as MT-Bench's |
//! | `model_judgment/<judge>/<model>.jsonl` | uid, judge, model, baseline, games [{score}, {score}] | written by its `gen_judgment.py`; a file in neuralmagic/arena-hard-auto |
//!
//! In the first game A is the baseline and B the model, in the second A is the model. A score is "A>>B", "A>B", "A=B",
//! "B>A", "B>>A" or one of these the other way round ("B<A"); null, or a game that is null, where the judge gave none.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::mt_bench::{read_mt_bench_answers, texts};
use super::rows::{Row, read};
use super::{EvalSet, JudgedAs, JudgementRecord, ModelAnswer};
use crate::error::Result;

/// How many wins a strong verdict (A>>B) counts in Arena-Hard's win rate.
pub const ARENA_HARD_STRONG_WEIGHT: f64 = 3.0;

/// Reads the questions of any version.
pub fn read_arena_hard_questions(path: impl AsRef<Path>) -> Result<EvalSet> {
    let (mut set, mut places) = (EvalSet::default(), HashMap::new());
    for row in read(path.as_ref())? {
        let id = row.id(["uid", "question_id"])?;
        if places.contains_key(&id) {
            return Err(row.error(format!("question {id} is there twice: remove one")));
        }
        let turns = match row.get("turns") {
            Some(_) => texts(&row, "turns", row.list("turns")?)?,
            None => match row.optional_text("prompt")? {
                Some(prompt) => vec![prompt],
                None => {
                    return Err(
                        row.error("no \"prompt\" and no \"turns\": add the question's text as \"prompt\"")
                    );
                }
            },
        };
        let category = row.optional_text("category")?;
        let prompt = set.prompt(&mut places, id);
        (prompt.turns, prompt.category) = (turns, category);
    }
    Ok(set)
}

/// Reads a model's answers of any version.
pub fn read_arena_hard_answers(path: impl AsRef<Path>) -> Result<EvalSet> {
    let path = path.as_ref();
    let rows = read(path)?;
    if rows.first().is_some_and(|row| row.get("choices").is_some()) {
        return read_mt_bench_answers(path);
    }
    let (mut set, mut places) = (EvalSet::default(), HashMap::new());
    for row in rows {
        let (mut user, mut assistant) = (Vec::new(), Vec::new());
        for message in row.list("messages")? {
            let content = message.get("content").map(|content| content.get("answer").unwrap_or(content));
            let (Some(role), Some(content)) = (message.get("role").and_then(Value::as_str), content) else {
                return Err(row
                    .error("a message without \"role\" or \"content\": give {\"role\": …, \"content\": …}"));
            };
            match (role, content) {
                ("user", Value::String(text)) => user.push(text.clone()),
                ("assistant", Value::String(text)) => assistant.push(text.clone()),
                ("user" | "assistant", _) => {
                    return Err(
                        row.error("a message's \"content\" is no text and has no \"answer\": give the text")
                    );
                }
                _ => {}
            }
        }
        if assistant.is_empty() {
            return Err(row.error("no message of the assistant: add the model's answer to \"messages\""));
        }
        let model = row.text("model")?;
        let prompt = set.prompt(&mut places, row.id(["uid", "question_id"])?);
        prompt.turns = user;
        prompt.set_answer(ModelAnswer { model, turns: assistant });
    }
    Ok(set)
}

/// Reads judgements of a model against the baseline. A strong verdict is a whole win, as a plain one; it is marked `strong`.
pub fn read_arena_hard_judgements(path: impl AsRef<Path>) -> Result<EvalSet> {
    let (mut set, mut places) = (EvalSet::default(), HashMap::new());
    for row in read(path.as_ref())? {
        let games = row.list("games")?;
        let [first, second] = games.as_slice() else {
            return Err(
                row.error(format!("{} games: give two, the second with the answers swapped", games.len()))
            );
        };
        let baseline_first = score(&row, first)?.map(|(of_a, strong)| (1.0 - of_a, strong));
        let model_first = score(&row, second)?;
        let judgement = JudgementRecord {
            judge: row.optional_text("judge")?,
            model: row.text("model")?,
            turn: 1,
            verdict: JudgedAs::BothOrders {
                baseline: row.optional_text("baseline")?,
                model_first: model_first.map(|v| v.0),
                baseline_first: baseline_first.map(|v| v.0),
                strong: [model_first.is_some_and(|v| v.1), baseline_first.is_some_and(|v| v.1)],
            },
        };
        let category = row.optional_text("category")?;
        let prompt = set.prompt(&mut places, row.id(["uid", "question_id"])?);
        prompt.category = category;
        prompt.judgements.push(judgement);
    }
    Ok(set)
}

/// The preference for A (1, ½ or 0) and whether it is a strong one.
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
/// [`ARENA_HARD_STRONG_WEIGHT`] times; prompts without a verdict in either game are left out. Nothing when none is left.
///
/// This is the mean that its `show_result.py` resamples; the official table also corrects for style, which is not done here.
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
