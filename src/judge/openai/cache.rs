//! A cache of verdicts by request, so that no run pays for a request twice. A JSON-lines file to which lines are
//! appended.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dialect::Kind;
use super::options::OpenAiOptions;
use crate::digest::Digester;
use crate::error::Result;
use crate::files;
use crate::json_lines::SharedJsonLines;

const FILE: &str = "judgements.jsonl";

/// A line of the file. It contains no texts and nothing about the server.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    asked: String,
    value: f32,
}

/// The file and its content.
pub(super) struct Cache {
    lines: SharedJsonLines,
    known: HashMap<String, f32>,
    /// The number of lines that could not be read, such as a line that a crash has cut off.
    pub skipped: usize,
}

impl Cache {
    /// Opens the cache in the folder `dir`, which is created if it is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(dir: &Path) -> Result<Cache> {
        files::create_dir_all(dir)?;
        let (lines, rows, skipped) = SharedJsonLines::open::<Row>(&dir.join(FILE))?;
        let mut cache = Cache { lines, known: HashMap::new(), skipped };
        for row in rows {
            match row.value.is_finite() {
                true => drop(cache.known.insert(row.asked, row.value)),
                false => cache.skipped += 1,
            }
        }
        Ok(cache)
    }

    /// A digest of everything that determines the answer to `text`, except for the server.
    pub fn key(options: &OpenAiOptions, text: &str, kind: Kind) -> String {
        let mut digester = Digester::default();
        let OpenAiOptions { reasons, ties, log_probabilities, most_probable, temperature, .. } = options;
        let kind = if kind == Kind::Compare { "compare" } else { "rate" };
        let length = if *reasons { options.max_tokens } else { 0 };
        let listed = if *log_probabilities { *most_probable } else { 0 };
        let how = format!("1 {kind} {} {reasons} {ties} {listed} {temperature} {length}", options.api.name());
        for part in [how.as_str(), &options.model, options.system.as_deref().unwrap_or_default(), text] {
            digester.bytes(part.as_bytes());
        }
        digester.finish().to_string()
    }

    /// The cached value for a request; `None` also if the value is out of range for this kind of question.
    pub fn get(&self, key: &str, kind: Kind) -> Option<f32> {
        let range = match kind {
            Kind::Compare => 0.0..=1.0,
            Kind::Rate => 1.0..=10.0,
        };
        self.known.get(key).copied().filter(|value| range.contains(value))
    }

    /// Stores a value.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn put(&mut self, key: &str, value: f32) -> Result<()> {
        if self.known.insert(key.to_owned(), value) == Some(value) {
            return Ok(());
        }
        self.lines.append(&[Row { asked: key.to_owned(), value }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &Cache, key: &str) -> Option<f32> {
        cache.get(key, Kind::Compare)
    }

    #[test]
    fn an_unreadable_line_is_skipped_and_the_others_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let mut cache = Cache::open(&folder).unwrap();
        cache.put("x", 0.25).unwrap();
        cache.put("x", 0.25).unwrap();
        cache.put("y", 1.0).unwrap();
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        std::fs::write(&path, format!("\u{0}\n{text}{{\"asked\":\"z\",\"val")).unwrap();
        let mut cache = Cache::open(&folder).unwrap();
        assert_eq!(
            (get(&cache, "x"), get(&cache, "y"), get(&cache, "z"), cache.skipped),
            (Some(0.25), Some(1.0), None, 2)
        );
        cache.put("z", 0.5).unwrap();
        assert_eq!(get(&Cache::open(&folder).unwrap(), "z"), Some(0.5));
    }

    #[test]
    fn a_cached_value_out_of_range_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path()).unwrap();
        cache.put("x", 7.5).unwrap();
        assert_eq!((cache.get("x", Kind::Compare), cache.get("x", Kind::Rate)), (None, Some(7.5)));
    }

    #[test]
    fn the_key_depends_on_all_options_that_affect_the_answer_but_not_on_the_server() {
        let base = OpenAiOptions { model: "m".into(), ..OpenAiOptions::default() };
        let key = |options: &OpenAiOptions| Cache::key(options, "t", Kind::Compare);
        let elsewhere = OpenAiOptions { urls: vec!["http://h/v1".into()], retries: 9, ..base.clone() };
        assert_eq!(key(&base), key(&elsewhere));
        assert_ne!(key(&base), Cache::key(&base, "u", Kind::Compare));
        assert_ne!(key(&base), Cache::key(&base, "t", Kind::Rate));
        let others: [fn(&mut OpenAiOptions); 6] = [
            |o| o.model = "n".into(),
            |o| o.api = super::super::options::Api::Completions,
            |o| o.system = Some("s".into()),
            |o| o.temperature = 0.5,
            |o| o.reasons = true,
            |o| o.log_probabilities = false,
        ];
        for change in others {
            let mut other = base.clone();
            change(&mut other);
            assert_ne!(key(&base), key(&other), "{other:?}");
        }
    }
}
