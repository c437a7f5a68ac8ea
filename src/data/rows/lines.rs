//! JSON lines: one row per line.

use std::io::{BufRead, Read};
use std::path::PathBuf;

use super::column::Why;
use super::input::{Input, LONGEST, too_long, unreadable};
use super::json;
use super::reader::{Record, Records};
use crate::error::{Error, Result};

pub(super) struct Lines {
    input: Box<dyn BufRead>,
    path: PathBuf,
    line: usize,
    bytes: Vec<u8>,
    /// Whether a row was read before.
    begun: bool,
}

impl Lines {
    pub fn new(input: Input, path: PathBuf) -> Lines {
        Lines { input: input.bytes, path, line: input.blank_lines, bytes: Vec::new(), begun: false }
    }

    /// Reads the next line, without its end; returns false at the end of the file.
    fn read_line(&mut self) -> Result<bool> {
        self.bytes.clear();
        self.line += 1;
        let limit = LONGEST as u64 + 1;
        let read = (&mut self.input).take(limit).read_until(b'\n', &mut self.bytes);
        let count = read.map_err(unreadable(&self.path))?;
        match self.bytes.len() > LONGEST {
            true => Err(Error::file(&self.path, too_long("line"))),
            false => Ok(count > 0),
        }
    }
}

impl Records for Lines {
    fn next(&mut self) -> Result<Option<Record>> {
        while self.read_line()? {
            if self.bytes.trim_ascii().is_empty() {
                continue;
            }
            let first = !std::mem::replace(&mut self.begun, true);
            let row = json::row(&self.bytes).map_err(|why| with_hint(why, first, &self.bytes));
            return Ok(Some(Record { line: self.line, row }));
        }
        Ok(None)
    }
}

/// Extends the error of a first row that is not JSON by a hint about the whole file.
fn with_hint(why: Why, first: bool, bytes: &[u8]) -> Why {
    let row = matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'"'));
    match first && !row && why.starts_with("not valid JSON") {
        true => {
            format!("{why}: if it is a table, its name must end in .csv or .tsv (or these with .gz)")
        }
        false => why,
    }
}
