//! Compares measurements with those of an earlier run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::Measurement;
use crate::error::{Error, Result};
use crate::files;

/// The key of a measurement: suite, case, sizes, and how weights are stored.
type Key = [String; 4];

/// The rows written by `oaif bench --json`. If a case was measured more than once, the last row counts.
pub struct Earlier {
    /// The first row: GPU, driver, versions and ceilings of the earlier run.
    pub about: Value,
    ms: BTreeMap<Key, f64>,
    seen: BTreeSet<Key>,
}

impl Earlier {
    /// Reads them from a file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::File`] for a file without measurements.
    pub fn load(path: &Path) -> Result<Earlier> {
        Earlier::parse(&files::read(path)?).map_err(|why| Error::file(path, why))
    }

    fn parse(bytes: &[u8]) -> Result<Earlier, String> {
        let mut earlier = Earlier { about: Value::Null, ms: BTreeMap::new(), seen: BTreeSet::new() };
        for row in serde_json::Deserializer::from_slice(bytes).into_iter() {
            let row: Value =
                row.map_err(|e| format!("is not a file written by `oaif bench --json` ({e})"))?;
            if earlier.about.is_null() && row["gpu"].is_object() {
                earlier.about = row.clone();
            }
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let ms = row["ms"].as_f64().filter(|ms| ms.is_finite() && *ms > 0.0);
            if let (true, Some(ms)) = (row["case"].is_string(), ms) {
                earlier.ms.insert(["suite", "case", "shape", "weights"].map(text), ms);
            }
        }
        match earlier.ms.is_empty() {
            true => Err("contains no measurement of `oaif bench --json`".into()),
            false => Ok(earlier),
        }
    }

    /// Returns the time of the same case in the earlier run, in milliseconds.
    pub fn ms_of(&mut self, now: &Measurement) -> Option<f64> {
        let facts = &now.facts;
        let weights = facts.weights.clone().unwrap_or_default();
        let key = [facts.suite.into(), facts.case.clone(), facts.shape.clone(), weights];
        let ms = self.ms.get(&key).copied();
        self.seen.insert(key);
        ms
    }

    /// Returns the earlier cases of these suites that [`Earlier::ms_of`] was not called for.
    pub fn unseen(&self, suites: &[&str]) -> Vec<String> {
        let unseen = self.ms.keys().filter(|key| suites.contains(&&*key[0]) && !self.seen.contains(*key));
        unseen.map(|key| label(&key[0], &key[1], &key[2], &key[3])).collect()
    }
}

impl Measurement {
    /// Returns the full name of the case.
    pub fn label(&self) -> String {
        let weights = self.facts.weights.as_deref().unwrap_or_default();
        label(self.facts.suite, &self.facts.case, &self.facts.shape, weights)
    }
}

fn label(suite: &str, case: &str, shape: &str, weights: &str) -> String {
    let comma = if weights.is_empty() { "" } else { ", " };
    format!("{suite} {case} ({shape}{comma}{weights})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Facts;
    use crate::bench::tests::measurement;

    const FILE: &str = r#"{"version": "0.1.0", "gpu": {"name": "x"}}
{"suite": "step", "case": "sft", "shape": "C 8", "weights": "float32, frozen", "ms": 8.0}

{"suite": "step", "case": "sft", "shape": "C 8", "weights": "float32, frozen", "ms": 4.0}
{"suite": "step", "case": "dpo", "shape": "C 8", "ms": 3.0}
{"suite": "kernels", "case": "product", "shape": "N 1", "ms": 1.0}
{"suite": "step", "ceilings": {"gflops": 1.0}}
"#;

    #[test]
    fn a_case_is_found_by_suite_name_sizes_and_weights_and_the_others_are_listed() {
        let mut earlier = Earlier::parse(FILE.as_bytes()).unwrap();
        assert_eq!(earlier.about["gpu"]["name"], "x");
        let mut facts = Facts::bare("step", "sft", "C 8");
        assert_eq!(earlier.ms_of(&measurement(&facts)), None);
        facts.weights = Some("float32, frozen".into());
        assert_eq!(earlier.ms_of(&measurement(&facts)), Some(4.0));
        assert_eq!(earlier.unseen(&["step", "decode"]), ["step dpo (C 8)"]);
        assert_eq!(earlier.unseen(&["kernels", "step"]).len(), 2);
        assert_eq!(measurement(&facts).label(), "step sft (C 8, float32, frozen)");
    }

    #[test]
    fn a_file_without_measurements_is_refused() {
        for text in ["", "{}", "{\"suite\": \"step\"}", "{\"case\": \"sft\", \"ms\": 0}", "[1]"] {
            assert!(
                Earlier::parse(text.as_bytes()).is_err_and(|why| why.contains("no measurement")),
                "{text}"
            );
        }
        assert!(Earlier::parse(b"ms,case").is_err_and(|why| why.contains("oaif bench --json")));
    }
}
