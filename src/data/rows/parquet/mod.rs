//! Parquet: the crate of that name reads it, row by row. It trusts what a file says of itself, so [`check`] reads that
//! first, and a panic in the crate is an error like any other.

mod check;
mod thrift;
mod value;

use std::fs::File;
use std::path::{Path, PathBuf};

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::SerializedFileReader;
use ::parquet::record::reader::RowIter;

use super::column::Row;
use super::reader::{Record, Records};
use crate::error::{Error, Result};
use crate::panics;

/// Rows whose texts are larger than this in all, and so many times larger than the file, are refused: such a file only
/// keeps its reader busy.
const BOMB_BYTES: u64 = 256 << 20;
const BOMB_RATIO: u64 = 1000;

/// The rows of a Parquet file.
pub(super) fn rows(file: File, path: &Path) -> Result<Box<dyn Records>> {
    let size = check::check(&file).map_err(|why| Error::file(path, why))?;
    let reader = guarded(path, || SerializedFileReader::new(file))?;
    let rows = guarded(path, || Ok(RowIter::from_file_into(Box::new(reader))))?;
    Ok(Box::new(Parquet { rows, path: path.to_owned(), number: 0, size, read: 0 }))
}

struct Parquet {
    rows: RowIter<'static>,
    path: PathBuf,
    number: usize,
    /// Bytes of the file, and those of the texts that were in it so far.
    size: u64,
    read: u64,
}

impl Records for Parquet {
    fn next(&mut self) -> Result<Option<Record>> {
        // A date may be one that there never was.
        let row = guarded(&self.path, || Ok(self.rows.next().transpose()?.map(value::columns)))?;
        let Some((columns, unusable, bytes)) = row else { return Ok(None) };
        self.number += 1;
        self.read += bytes;
        if self.read > BOMB_BYTES && self.read / BOMB_RATIO > self.size {
            let why = format!(
                "its first {} rows hold more than {} MiB, over {BOMB_RATIO} times as much as the file has, which no dataset \
                 does",
                self.number,
                BOMB_BYTES >> 20
            );
            return Err(Error::file(&self.path, why));
        }
        Ok(Some(Record { line: self.number, row: Ok(Row::new(columns, unusable)) }))
    }

    fn told(&self, number: usize, why: String) -> String {
        format!("row {number} of the table: {why}")
    }
}

/// The result of a call of the crate, whose panics are errors.
fn guarded<T>(path: &Path, call: impl FnOnce() -> ::parquet::errors::Result<T>) -> Result<T> {
    let why = match panics::caught(call) {
        Ok(Ok(value)) => return Ok(value),
        // Its text begins with the kind of error.
        Ok(Err(ParquetError::General(why) | ParquetError::EOF(why))) => why,
        Ok(Err(other)) => other.to_string(),
        Err(panic) => panic,
    };
    Err(Error::file(path, format!("cannot be read as Parquet ({why}): is it damaged?")))
}
