//! `labels.jsonl`: what a person said, a line an event, written as it happens.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::label::Label;
use crate::data::chat::strftime::strftime;
use crate::error::{Error, Result};
use crate::files;

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelRow {
    /// The question's.
    pub id: String,
    /// "1" (`response_1` is better), "2", "tie", "skip"; "undone" takes back the label above it of the same id; "comment"
    /// is a comment without a label.
    pub label: LabelEvent,
    /// Which response was shown first: 1 or 2.
    pub shown_first: u8,
    /// What the person wrote about the pair.
    pub comment: String,
    /// For how long the pair was shown.
    pub seconds: f64,
    /// When, in UTC.
    pub at: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LabelEvent {
    /// A label was given.
    Given(Label),
    /// Something else.
    Other(OtherEvent),
}

/// What happened besides labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtherEvent {
    /// The last label of the pair was taken back.
    Undone,
    /// A comment was written, before or without a label.
    Comment,
}

impl LabelRow {
    /// A row of now.
    pub fn now(id: &str, label: LabelEvent, shown_first: u8, comment: &str, seconds: f64) -> LabelRow {
        let at = strftime("%Y-%m-%dT%H:%M:%SZ", SystemTime::now());
        LabelRow { id: id.into(), label, shown_first, comment: comment.into(), seconds, at }
    }
}

/// The file, open at its end.
pub struct LabelFile {
    path: PathBuf,
    file: File,
    /// Bytes that are whole lines.
    length: u64,
}

impl LabelFile {
    /// Opens the file `path`, or begins it; returns what it holds. A last line that a crash has torn is removed.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Row`] for another line that is no event.
    pub fn open(path: &Path) -> Result<(LabelFile, Vec<LabelRow>)> {
        let text = if path.exists() { files::read(path)? } else { Vec::new() };
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut rows = Vec::new();
        for (number, line) in text[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            rows.push(serde_json::from_slice(line).map_err(|e| {
                let why = format!(
                    "is no label of a person ({e}): remove the line, and its pair is asked about again"
                );
                Error::Row { path: path.to_owned(), line: number + 1, why }
            })?);
        }
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let file = opened.map_err(Error::io("write", path))?;
        file.set_len(whole as u64).map_err(Error::io("write", path))?;
        Ok((LabelFile { path: path.to_owned(), file, length: whole as u64 }, rows))
    }

    /// Adds a row, which is on the disk on return.
    ///
    /// # Errors
    /// [`Error::Io`]; the file is as it was.
    pub fn append(&mut self, row: &LabelRow) -> Result<()> {
        let mut line = serde_json::to_vec(row).expect("JSON of plain values");
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.length += line.len() as u64,
            // Half a line must not stand before the next one. The first error is the one worth telling.
            Err(_) => drop(self.file.set_len(self.length)),
        }
        written.map_err(Error::io("write", &self.path))
    }
}

#[cfg(all(test, target_os = "linux"))]
impl LabelFile {
    /// A file that takes nothing.
    pub fn on_a_full_disk() -> LabelFile {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).expect("Linux has it");
        LabelFile { path, file, length: 0 }
    }
}

#[cfg(test)]
mod tests {
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
        let (mut record, before) = LabelFile::open(&path).unwrap();
        assert!(before.is_empty());
        rows.iter().for_each(|row| record.append(row).unwrap());
        drop(record);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"id\":\"2-b\",\"label\":\"1\"").unwrap();
        let (mut record, found) = LabelFile::open(&path).unwrap();
        assert_eq!(found, rows);
        record.append(&rows[0]).unwrap();
        assert_eq!(LabelFile::open(&path).unwrap().1[3], rows[0], "the next one begins a line");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(r#"{"id":"1-a","label":"2","shown_first":1,"comment":"a \"quoted\"\nword","seconds":1.5,"at":"2"#), "{text}");
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn another_line_that_is_no_label_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.jsonl");
        for line in ["{}", r#"{"id":"1","label":"3","shown_first":1,"comment":"","seconds":0,"at":""}"#] {
            std::fs::write(&path, format!("{line}\n")).unwrap();
            let error = LabelFile::open(&path).err().expect("an error").to_string();
            assert!(error.contains("labels.jsonl:1: is no label of a person"), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_row_that_cannot_be_written_is_an_error_and_does_not_count() {
        let mut record = LabelFile::on_a_full_disk();
        let row = LabelRow::now("1", LabelEvent::Given(Label::Tie), 1, "", 0.0);
        let error = record.append(&row).unwrap_err().to_string();
        assert!(error.starts_with("cannot write /dev/full"), "{error}");
        assert_eq!(record.length, 0);
    }
}
