//! AlpacaEval (`tatsu-lab/alpaca_eval`): JSON arrays, as in its repository at commit cd543a1.
//!
//! | file | keys of a row |
//! |---|---|
//! | `results/<model>/model_outputs.json`, `example/outputs.json` | instruction, output, generator, dataset |
//! | `results/<model>/<annotator>/annotations.json` | instruction, output_1, generator_1 (the baseline), output_2, generator_2 (the model), annotator, preference |
//! | `df_gamed.csv` of its dataset on the hub | preference, index, std_delta_len, instruction_difficulty, not_gamed_baseline, model |
//!
//! `preference` is 1 if the baseline's output is better and 2 if the model's is, anything between for a judge that
//! gives probabilities, 1.5 for a tie, 0 for a tie in old files, and null if the judge gave no usable verdict. In
//! `df_gamed.csv` it is 0 to 1.

use std::path::Path;

use super::rows::{Row, read, row_error};
use super::{EvalPrompt, JudgedAs, JudgementRecord};
use crate::error::{Error, Result};
use crate::eval::alpaca_eval::Anchor;
use crate::files;

/// Reads a model's outputs.
///
/// # Errors
/// [`Error::Io`]; [`Error::Row`] for a row that lacks a required key.
pub fn read_alpaca_outputs(path: impl AsRef<Path>) -> Result<Vec<EvalPrompt>> {
    let prompt =
        |row: &Row| Ok(EvalPrompt { text: row.text("instruction")?, reference: Some(row.text("output")?) });
    read(path.as_ref())?.iter().map(prompt).collect()
}

/// A row of annotations: the preference for the second output.
pub(super) fn judging(row: &Row) -> Result<JudgementRecord> {
    let preference = match row.number("preference")? {
        None if !row.keys.contains_key("preference") => {
            return Err(row.error("no \"preference\": give 1 to 2, or null where the judge gave no verdict"));
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
    let characters = |key: &str| Ok(row.text(key)?.chars().count() as f64);
    Ok(JudgementRecord {
        judge: row.optional_text("annotator")?,
        model: row.text("generator_2")?,
        baseline: Some(row.text("generator_1")?),
        turn: 1,
        lengths: Some([characters("output_2")?, characters("output_1")?]),
        verdict: JudgedAs::Once(preference),
    })
}

/// AlpacaEval's fitted difficulties and judged anchors, which its length-controlled win rate uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlpacaAnchors {
    /// γ of each instruction, in their order.
    pub difficulties: Vec<f64>,
    /// Judged outputs of baselines prompted to be verbose or concise.
    pub anchors: Vec<Anchor>,
}

/// Reads `df_gamed.csv`.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] for a file without its columns or rows, [`Error::Row`] for a value that is not a
/// number.
pub fn read_alpaca_anchors(path: &Path) -> Result<AlpacaAnchors> {
    let text = files::read_text(path)?;
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let header: Vec<&str> =
        lines.next().map_or(Vec::new(), |(_, line)| line.split(',').map(str::trim).collect());
    let column = |name: &str| {
        header.iter().position(|column| *column == name).ok_or_else(|| {
            let why = format!("has no column {name}: give df_gamed.csv of the dataset tatsu-lab/alpaca_eval");
            Error::file(path, why)
        })
    };
    let columns = [
        column("index")?,
        column("preference")?,
        column("std_delta_len")?,
        column("instruction_difficulty")?,
    ];
    let mut read = AlpacaAnchors::default();
    for (line, row) in lines {
        let cells: Vec<&str> = row.split(',').map(str::trim).collect();
        let number = |at: usize| {
            let value =
                cells.get(at).and_then(|cell| cell.parse::<f64>().ok()).filter(|value| value.is_finite());
            value.ok_or_else(|| row_error(path, line, format!("has no number as its {}", header[at])))
        };
        let [index, preference, standardised_difference, difficulty] = columns.map(number);
        let difficulty = difficulty?;
        // Each instruction occurs once per baseline.
        if index? as usize == read.difficulties.len() {
            read.difficulties.push(difficulty);
        }
        let (preference, standardised_difference) = (preference?, standardised_difference?);
        read.anchors.push(Anchor { preference, standardised_difference, difficulty });
    }
    Ok(read)
}
