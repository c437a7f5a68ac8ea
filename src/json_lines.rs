//! JSON Lines files that a program appends to while it runs, and whose last line may be incomplete after a crash.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files;

/// A file that only this process writes to, opened for appending.
pub(crate) struct JsonLines {
    path: PathBuf,
    file: File,
    /// The length of the complete lines in bytes.
    length: u64,
}

impl JsonLines {
    /// Opens or creates the file `path`, and returns its rows. An incomplete last line, left by a crash, is removed.
    /// `wrong` returns the message about an invalid line.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Row`] for an invalid line.
    pub fn open<T: DeserializeOwned>(
        path: &Path,
        wrong: impl Fn(serde_json::Error) -> String,
    ) -> Result<(JsonLines, Vec<T>)> {
        let text = read_if_present(path)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let row = |(number, line): (usize, &[u8])| {
            serde_json::from_slice(line).map_err(|error| Error::Row {
                path: path.to_owned(),
                line: number + 1,
                why: wrong(error),
            })
        };
        let lines = text[..whole].split_inclusive(|byte| *byte == b'\n');
        let rows = lines.enumerate().map(row).collect::<Result<Vec<T>>>()?;
        let file = at_end(path)?;
        file.set_len(whole as u64).map_err(Error::io("write", path))?;
        Ok((JsonLines { path: path.to_owned(), file, length: whole as u64 }, rows))
    }

    /// Appends rows and syncs them to the disk.
    ///
    /// # Errors
    /// [`Error::Io`]; the file is then unchanged.
    pub fn append(&mut self, rows: &[impl Serialize]) -> Result<()> {
        let lines = lines(rows);
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.length += lines.len() as u64,
            // An incomplete line must not precede the next one. Only the first error is reported.
            Err(_) => drop(self.file.set_len(self.length)),
        }
        written.map_err(Error::io("write", &self.path))
    }
}

#[cfg(all(test, target_os = "linux"))]
impl JsonLines {
    /// A file to which nothing can be written.
    pub fn on_a_full_disk() -> JsonLines {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).expect("Linux has it");
        JsonLines { path, file, length: 0 }
    }
}

/// An optional file that other processes may write to as well, opened for appending.
pub(crate) struct SharedJsonLines {
    path: PathBuf,
    file: File,
}

impl SharedJsonLines {
    /// Opens or creates the file `path`, and returns its rows and the number of invalid lines, which are skipped. An
    /// incomplete last line is terminated.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(SharedJsonLines, Vec<T>, usize)> {
        let text = read_if_present(path)?;
        let mut file = at_end(path)?;
        if text.last().is_some_and(|last| *last != b'\n') {
            file.write_all(b"\n").map_err(Error::io("write", path))?;
        }
        let (mut rows, mut skipped) = (Vec::new(), 0);
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(row) => rows.push(row),
                Err(_) => skipped += 1,
            }
        }
        Ok((SharedJsonLines { path: path.to_owned(), file }, rows, skipped))
    }

    /// Appends rows in one write.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, rows: &[impl Serialize]) -> Result<()> {
        self.file.write_all(&lines(rows)).map_err(Error::io("write", &self.path))
    }
}

fn read_if_present(path: &Path) -> Result<Vec<u8>> {
    if path.exists() { files::read(path) } else { Ok(Vec::new()) }
}

fn at_end(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("write", path))
}

fn lines(rows: &[impl Serialize]) -> Vec<u8> {
    let mut lines = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut lines, row).expect("JSON of plain values");
        lines.push(b'\n');
    }
    lines
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_cannot_be_written_is_an_error_and_is_not_counted() {
        let mut lines = JsonLines::on_a_full_disk();
        let error = lines.append(&["a row"]).unwrap_err().to_string();
        assert!(error.starts_with("cannot write /dev/full"), "{error}");
        assert_eq!(lines.length, 0);
    }
}
