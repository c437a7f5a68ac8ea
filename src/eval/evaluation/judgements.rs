//! Another judge's verdicts on the pairs of an evaluation, read from a file.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::eval::comparison::Decision;
use crate::eval::result::EvaluatedPair;
use crate::files;

/// Reads the decisions on the pairs, one line per pair, in their order: `{"verdict"}`, and the texts of the pair if the rows
/// have them.
pub(super) fn read(path: &Path, pairs: &[EvaluatedPair]) -> Result<Vec<Option<Decision>>> {
    let text = files::read_text(path)?;
    let rows: Vec<(usize, &str)> =
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    if rows.len() != pairs.len() {
        let why = format!(
            "holds {} verdicts for {} pairs: give one line per pair, in the same order",
            rows.len(),
            pairs.len()
        );
        return Err(Error::file(path, why));
    }
    let decision = |((line, text), pair): ((usize, &str), &EvaluatedPair)| {
        let bad = |why: &str| Error::Row { path: path.to_owned(), line, why: why.to_owned() };
        let row: Value = serde_json::from_str(text).map_err(|e| bad(&format!("is not JSON ({e})")))?;
        let known = [("prompt", &pair.prompt), ("response_a", &pair.a.text), ("response_b", &pair.b.text)];
        for (key, known) in known {
            if row[key].as_str().is_some_and(|text| text != known) {
                return Err(bad(&format!(
                    "belongs to another pair: its {key} differs from that of the compared pair"
                )));
            }
        }
        match row["verdict"].as_str() {
            Some("win" | "1") => Ok(Some(Decision::Win)),
            Some("loss" | "2") => Ok(Some(Decision::Loss)),
            Some("tie") => Ok(Some(Decision::Tie)),
            Some("invalid") => Ok(None),
            _ => Err(bad("has no \"verdict\": give win or 1 for A, loss or 2 for B, tie or invalid")),
        }
    };
    rows.into_iter().zip(pairs).map(decision).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::judging::PairVerdict;
    use crate::eval::result::EvaluatedResponse;

    #[test]
    fn verdicts_of_another_judge_are_read_in_the_order_of_the_pairs_and_checked_against_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("verdicts.jsonl");
        let response = |text: &str| EvaluatedResponse { text: text.into(), ..EvaluatedResponse::default() };
        let (a, b, verdict) = (response("a"), response("b"), PairVerdict::default());
        let pairs = vec![EvaluatedPair { prompt: "x".into(), a, b, verdict }; 3];
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path, &pairs).map_err(|error| error.to_string())
        };
        let row = r#"{"verdict": "win", "prompt": "x", "response_a": "a", "response_b": "b"}"#;
        let own = read(&format!("{row}\n\n{{\"verdict\": \"2\"}}\n{{\"verdict\": \"invalid\"}}\n"));
        assert_eq!(own.unwrap(), [Some(Decision::Win), Some(Decision::Loss), None]);
        let few = read(row).unwrap_err();
        assert!(few.contains("holds 1 verdicts for 3 pairs"), "{few}");
        let swapped = row.replace("\"response_a\": \"a\"", "\"response_a\": \"b\"");
        let other = read(&format!("{row}\n{swapped}\n{row}")).unwrap_err();
        assert!(other.contains(":2: belongs to another pair: its response_a"), "{other}");
        let odd = read(&format!("{row}\n{row}\n{{\"verdict\": \"A\"}}")).unwrap_err();
        assert!(odd.contains(":3: has no \"verdict\""), "{odd}");
    }
}
