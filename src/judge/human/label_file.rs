//! `labels.jsonl`: a person's labels, one event per line, written as it happens.

use std::path::Path;
use web_time::SystemTime;

use serde::{Deserialize, Serialize};

use super::label::Label;
use crate::data::chat::strftime::strftime;
use crate::error::Result;
use crate::json_lines::JsonLines;

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelRow {
    /// The id of the question.
    pub id: String,
    /// "1" (`response_1` is better), "2", "tie" or "skip"; "undone" undoes the previous label of the same id; "comment"
    /// is a comment without a label.
    pub label: LabelEvent,
    /// Which response was shown first: 1 or 2.
    pub shown_first: u8,
    /// The person's comment on the pair.
    pub comment: String,
    /// How long the pair was shown, in seconds.
    pub seconds: f64,
    /// The time of the event, in UTC.
    pub at: String,
}

/// The kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LabelEvent {
    /// A label was given.
    Given(Label),
    /// Something else.
    Other(OtherEvent),
}

/// Events other than labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtherEvent {
    /// The latest label of the pair was undone.
    Undone,
    /// A comment was written, before or without a label.
    Comment,
}

impl LabelRow {
    /// A row with the current time.
    pub fn now(id: &str, label: LabelEvent, shown_first: u8, comment: &str, seconds: f64) -> LabelRow {
        let at = strftime("%Y-%m-%dT%H:%M:%SZ", SystemTime::now());
        LabelRow { id: id.into(), label, shown_first, comment: comment.into(), seconds, at }
    }
}

/// Opens or creates the file `path` and returns its rows.
///
/// # Errors
/// As [`JsonLines::open`].
pub(crate) fn open(path: &Path) -> Result<(JsonLines, Vec<LabelRow>)> {
    JsonLines::open(path, |error| {
        format!("is not a valid label ({error}): remove the line, and the pair is shown again")
    })
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::slice::from_ref;

    use super::*;

    #[test]
    fn a_torn_last_line_is_removed_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.jsonl");
        let row = |id, label| LabelRow::now(id, label, 1, "a \"quoted\"\nword", 1.5);
        let rows = [
            row("1-a", LabelEvent::Given(Label::Response2)),
            row("1-a", LabelEvent::Other(OtherEvent::Undone)),
            row("1-a", LabelEvent::Other(OtherEvent::Comment)),
        ];
        let (mut record, before) = open(&path).unwrap();
        assert!(before.is_empty());
        rows.iter().for_each(|row| record.append(from_ref(row)).unwrap());
        drop(record);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"id\":\"2-b\",\"label\":\"1\"").unwrap();
        let (mut record, found) = open(&path).unwrap();
        assert_eq!(found, rows);
        record.append(&rows[..1]).unwrap();
        assert_eq!(open(&path).unwrap().1[3], rows[0], "the next one begins a line");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(r#"{"id":"1-a","label":"2","shown_first":1,"comment":"a \"quoted\"\nword","seconds":1.5,"at":"2"#), "{text}");
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn any_other_line_that_is_not_a_label_is_an_error_with_its_line_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.jsonl");
        for line in ["{}", r#"{"id":"1","label":"3","shown_first":1,"comment":"","seconds":0,"at":""}"#] {
            std::fs::write(&path, format!("{line}\n")).unwrap();
            let error = open(&path).err().expect("an error").to_string();
            assert!(error.contains("labels.jsonl:1: is not a valid label"), "{error}");
        }
    }
}
