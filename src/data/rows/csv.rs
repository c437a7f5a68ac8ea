//! Tables: CSV and TSV with a header. Each cell is a string; an empty cell is an empty string.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use serde_json::{Map, Value};

use super::column::{Row, Why};
use super::input::{Input, LONGEST, too_long, unreadable};
use super::reader::{Record, Records, place};
use crate::error::{Error, Result};

/// The largest number of columns of a table.
const MOST_COLUMNS: usize = 4096;

pub(super) struct Table {
    rows: Reader<Bounded>,
    read: Rc<Cell<usize>>,
    names: Vec<String>,
    record: ByteRecord,
    path: PathBuf,
}

impl Table {
    /// Returns the delimiter of the file at `path`, if its name is that of a table.
    pub fn delimiter(path: &Path) -> Option<u8> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        match plain.rsplit_once('.')?.1 {
            "csv" => Some(b','),
            "tsv" => Some(b'\t'),
            _ => None,
        }
    }

    /// Opens a table and reads its header.
    pub fn new(input: Input, path: &Path, delimiter: u8) -> Result<Table> {
        let read = Rc::new(Cell::new(0));
        let bounded = Bounded { input: input.bytes, read: read.clone() };
        let rows = ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(bounded);
        let mut table = Table { rows, read, names: Vec::new(), record: ByteRecord::new(), path: path.into() };
        let refuse = |why: String| Err(Error::file(path, why));
        match table.read_record()? {
            Ok(true) => {}
            Ok(false) => return Ok(table),
            Err((_, why)) => return refuse(format!("its header is unusable: {why}")),
        }
        if table.record.len() > MOST_COLUMNS {
            return refuse(format!(
                "its header has {} columns, more than the supported {MOST_COLUMNS}: check that it is a table with a header",
                table.record.len()
            ));
        }
        for cell in table.record.iter() {
            match std::str::from_utf8(cell) {
                Ok(name) => table.names.push(name.trim().to_owned()),
                Err(_) => return refuse("its header is not UTF-8 text: save it as UTF-8".into()),
            }
        }
        let mut seen = BTreeSet::new();
        let twice = table.names.iter().find(|name| !name.is_empty() && !seen.insert(*name));
        match twice {
            Some(name) => refuse(format!("its header has two columns {name:?}: rename one")),
            None => Ok(table),
        }
    }

    /// Reads the next record; returns false at the end. The inner error is about this record, which is at this line.
    fn read_record(&mut self) -> Result<Result<bool, (usize, Why)>> {
        self.read.set(0);
        let error = match self.rows.read_byte_record(&mut self.record) {
            Ok(more) => return Ok(Ok(more)),
            Err(error) => error,
        };
        let line = error.position().map_or(1, |position| position.line() as usize);
        match error.into_kind() {
            ErrorKind::Io(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                Err(Error::file(&self.path, too_long("row")))
            }
            ErrorKind::Io(e) => Err(unreadable(&self.path)(e)),
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                let cells = if len == 1 { "cell" } else { "cells" };
                let why = format!(
                    "has {len} {cells}, but the header has {expected_len}: quote cells that contain the delimiter"
                );
                Ok(Err((line, why)))
            }
            other => Ok(Err((line, format!("{other:?}")))),
        }
    }

    fn row(&self) -> Result<Row, Why> {
        let mut columns = Map::new();
        for (name, cell) in self.names.iter().zip(&self.record).filter(|(name, _)| !name.is_empty()) {
            let text = std::str::from_utf8(cell)
                .map_err(|_| format!("column \"{name}\" is not UTF-8 text: save the table as UTF-8"))?;
            columns.insert(name.clone(), Value::from(text));
        }
        Ok(Row::new(columns, Vec::new()))
    }
}

impl Records for Table {
    fn next(&mut self) -> Result<Option<Record>> {
        let (line, row) = match self.read_record()? {
            Ok(false) => return Ok(None),
            Ok(true) => {
                let line = self.record.position().map_or(1, |position| position.line() as usize);
                (line, self.row())
            }
            Err((line, why)) => (line, Err(why)),
        };
        if self.read.get() > LONGEST {
            return Err(place(&self.path, line).error(too_long("row")));
        }
        Ok(Some(Record { line, row }))
    }
}

/// Limits the length of a row, since an unclosed quote would make the rest of the file one cell.
struct Bounded {
    input: Box<dyn BufRead>,
    /// The number of bytes since the start of the row, accurate to a buffer.
    read: Rc<Cell<usize>>,
}

impl Read for Bounded {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read.get() > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.input.read(into)?;
        self.read.set(self.read.get() + count);
        Ok(count)
    }
}
