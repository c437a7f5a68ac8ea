//! Parquet files, read row by row by the crate of that name. It trusts the metadata of a file, so [`check`] validates
//! the metadata first, and a panic in the crate becomes an error.

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

/// A file is rejected if the size of its texts exceeds this limit and this ratio to the file's size: reading it would
/// take unreasonably long.
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
    /// The size of the file, and the size of the texts read so far, in bytes.
    size: u64,
    read: u64,
}

impl Records for Parquet {
    fn next(&mut self) -> Result<Option<Record>> {
        // An invalid date makes the crate panic.
        let row = guarded(&self.path, || Ok(self.rows.next().transpose()?.map(value::columns)))?;
        let Some((columns, unusable, bytes)) = row else { return Ok(None) };
        self.number += 1;
        self.read += bytes;
        if self.read > BOMB_BYTES && self.read / BOMB_RATIO > self.size {
            let why = format!(
                "its first {} rows decompress to more than {} MiB, over {BOMB_RATIO} times the size of the file, \
                 which no dataset does",
                self.number,
                BOMB_BYTES >> 20
            );
            return Err(Error::file(&self.path, why));
        }
        Ok(Some(Record { line: self.number, row: Ok(Row::new(columns, unusable)) }))
    }

    fn describe(&self, number: usize, why: String) -> String {
        format!("row {number} of the table: {why}")
    }
}

/// Calls the crate, and converts its panics to errors.
fn guarded<T>(path: &Path, call: impl FnOnce() -> ::parquet::errors::Result<T>) -> Result<T> {
    let why = match panics::caught(call) {
        Ok(Ok(value)) => return Ok(value),
        // The text of the other errors begins with their kind.
        Ok(Err(ParquetError::General(why) | ParquetError::EOF(why))) => why,
        Ok(Err(other)) => other.to_string(),
        Err(panic) => panic,
    };
    Err(Error::file(path, format!("cannot be read as Parquet ({why}): it may be damaged")))
}
