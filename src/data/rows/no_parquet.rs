//! Parquet, in a build without it.

use std::fs::File;
use std::path::Path;

use super::reader::Records;
use crate::error::{Error, Result};

/// Refuses the file.
pub(super) fn rows(_: File, path: &Path) -> Result<Box<dyn Records>> {
    let why = "is a Parquet file, which this build does not read: build it with the feature parquet, or convert the file to \
               JSON lines (to_json of datasets)";
    Err(Error::file(path, why))
}
