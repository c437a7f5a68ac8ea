//! AlpacaEval (`tatsu-lab/alpaca_eval`): JSON arrays, read as in its repository at commit cd543a1.
//!
//! | file | keys of a row |
//! |---|---|
//! | `results/<model>/model_outputs.json`, `example/outputs.json` | instruction, output, generator, dataset |
//! | `results/<model>/<annotator>/annotations.json` | instruction, output_1, generator_1 (the baseline), output_2, generator_2 (the model), annotator, preference |
//!
//! `preference` is 1 where the baseline's output is better and 2 where the model's is, anything between for a judge that
//! gives probabilities, 1.5 for a tie, 0 for a tie in old files, and null where the judge gave no usable verdict.

use std::path::Path;

use super::rows::{Row, read};
use super::{EvalPrompt, EvalSet, JudgedAs, JudgementRecord, ModelAnswer};
use crate::error::Result;

/// Reads a model's outputs. A row without `generator` is of the model that the file's name tells.
pub fn read_alpaca_outputs(path: impl AsRef<Path>) -> Result<EvalSet> {
    let path = path.as_ref();
    let stem = path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
    let mut set = EvalSet::default();
    for (position, row) in read(path)?.iter().enumerate() {
        let model = row.optional_text("generator")?.unwrap_or_else(|| stem.clone());
        let mut prompt = prompt_of(row, position)?;
        prompt.answers.push(ModelAnswer { model, turns: vec![row.text("output")?] });
        set.prompts.push(prompt);
    }
    Ok(set)
}

/// Reads annotations: of each row both outputs and the preference for the second.
pub fn read_alpaca_annotations(path: impl AsRef<Path>) -> Result<EvalSet> {
    let mut set = EvalSet::default();
    for (position, row) in read(path.as_ref())?.iter().enumerate() {
        let (baseline, model) = (row.text("generator_1")?, row.text("generator_2")?);
        let preference = match row.number("preference")? {
            None if !row.keys.contains_key("preference") => {
                return Err(
                    row.error("no \"preference\": give 1 to 2, or null where the judge gave no verdict")
                );
            }
            None => None,
            Some(0.0) => Some(0.5),
            Some(p) if (1.0..=2.0).contains(&p) => Some(p - 1.0),
            Some(p) => {
                return Err(
                    row.error(format!("\"preference\" is {p}: give 1 to 2, 1.5 for a tie, or null for none"))
                );
            }
        };
        let mut prompt = prompt_of(row, position)?;
        prompt.answers.push(ModelAnswer { model: baseline.clone(), turns: vec![row.text("output_1")?] });
        // AlpacaEval's own baseline is judged against itself: one model, one answer.
        prompt.set_answer(ModelAnswer { model: model.clone(), turns: vec![row.text("output_2")?] });
        prompt.judgements.push(JudgementRecord {
            judge: row.optional_text("annotator")?,
            model,
            turn: 1,
            verdict: JudgedAs::Once { baseline, preference },
        });
        set.prompts.push(prompt);
    }
    Ok(set)
}

fn prompt_of(row: &Row, position: usize) -> Result<EvalPrompt> {
    Ok(EvalPrompt {
        id: position.to_string(),
        category: row.optional_text("dataset")?,
        turns: vec![row.text("instruction")?],
        ..EvalPrompt::default()
    })
}
