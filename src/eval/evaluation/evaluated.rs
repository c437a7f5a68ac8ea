//! The results of an evaluation, and their files.

use std::path::PathBuf;

use serde_json::Value;

use crate::error::Result;
use crate::eval::result::{EvalResult, EvaluatedPair};
use crate::files;
use crate::lock::Lock;

/// The file of the results.
const RESULT: &str = "eval.json";
/// The file of both responses to each prompt, with the verdict.
const RESPONSES: &str = "responses.jsonl";

/// A finished evaluation. Its folder is locked until this is dropped.
pub struct Evaluated {
    /// The results.
    pub result: EvalResult,
    /// The prompts with both responses and the verdict.
    pub pairs: Vec<EvaluatedPair>,
    pub(super) output: PathBuf,
    pub(super) _lock: Lock,
}

impl Evaluated {
    /// The content of `eval.json`: the results and the caller's `configuration`.
    pub fn json(&self, configuration: &Value) -> Value {
        let mut value = serde_json::to_value(&self.result).expect("JSON of plain values");
        value["configuration"] = configuration.clone();
        value
    }

    /// Writes `eval.json` and `responses.jsonl` into the folder.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn save(&self, configuration: &Value) -> Result<()> {
        let row =
            |pair: &EvaluatedPair| serde_json::to_string(&pair.row()).expect("JSON of plain values") + "\n";
        let rows: String = self.pairs.iter().map(row).collect();
        files::write_atomic(&self.output.join(RESPONSES), rows.as_bytes())?;
        let json = self.json(configuration);
        files::write_atomic(&self.output.join(RESULT), format!("{json:#}\n").as_bytes())
    }
}
