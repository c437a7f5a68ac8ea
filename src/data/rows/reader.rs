//! The rows of the files of a dataset. Only one row is in memory at a time.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::array::Elements;
use super::column::{Row, Why};
use super::csv::Table;
use super::input::{Opened, open};
use super::lines::Lines;
use super::parquet;
use super::{Columns, Place};
use crate::error::Result;

/// One row in its file's format.
pub(super) struct Record {
    /// The number of its line, element or row, counted from 1.
    pub line: usize,
    /// The row, or the reason why it is invalid.
    pub row: Result<Row, Why>,
}

/// The rows of a file of some format.
pub(super) trait Records {
    /// Returns the next row, if there is one.
    fn next(&mut self) -> Result<Option<Record>>;

    /// Returns the message `why` about a row, extended by the unit of its number where that is not a line.
    fn describe(&self, _line: usize, why: Why) -> Why {
        why
    }
}

/// The place of a row in the file at `path`.
pub(super) fn place(path: &Path, line: usize) -> Place {
    Place { file: Some(path.into()), line }
}

/// Opens the file at `path`. The format is detected by content, except that of tables, which depends on the name.
fn records(path: &Path) -> Result<Box<dyn Records>> {
    let input = match open(path)? {
        Opened::Parquet(file) => return parquet::rows(file, path),
        Opened::Text(input) => input,
    };
    let json = matches!(input.head.first(), Some(b'{' | b'['));
    match Table::delimiter(path).filter(|_| !json) {
        Some(delimiter) => Ok(Box::new(Table::new(input, path, delimiter)?)),
        None => Ok(match Elements::of(input, path.to_owned()) {
            Ok(elements) => Box::new(elements),
            Err(input) => Box::new(Lines::new(input, path.to_owned())),
        }),
    }
}

/// Converts a row.
type Parse<T> = fn(&Row, &Columns, Place) -> Result<T, Why>;

/// An iterator that reads rows lazily. It ends after an error.
pub struct Rows<T> {
    columns: Columns,
    files: VecDeque<PathBuf>,
    parse: Parse<T>,
    open: Option<(Place, Box<dyn Records>)>,
    /// The place for the error about missing rows, until there is a row.
    missing: Option<Place>,
    ended: bool,
}

impl<T> Rows<T> {
    pub(super) fn new(files: &[PathBuf], columns: &Columns, parse: Parse<T>) -> Rows<T> {
        let missing = files.first().map(|file| place(file, 1));
        let files = files.iter().cloned().collect();
        Rows { columns: columns.clone(), files, parse, open: None, missing, ended: false }
    }

    fn read(&mut self) -> Result<Option<T>> {
        loop {
            let Some((at, records)) = &mut self.open else {
                let Some(file) = self.files.pop_front() else {
                    let why = "the file has no rows: expected JSON lines, a JSON array, CSV or Parquet";
                    return self.missing.take().map_or(Ok(None), |place| Err(place.error(why)));
                };
                self.open = Some((place(&file, 1), records(&file)?));
                continue;
            };
            let Some(Record { line, row }) = records.next()? else {
                self.open = None;
                continue;
            };
            let at = Place { line, ..at.clone() };
            let parsed = row.and_then(|row| (self.parse)(&row, &self.columns, at.clone()));
            let parsed = parsed.map_err(|why| at.error(records.describe(line, why)))?;
            self.missing = None;
            return Ok(Some(parsed));
        }
    }
}

impl<T> Iterator for Rows<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let row = if self.ended { None } else { self.read().transpose() };
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}
