//! Parquet in a build without the feature.

use std::fs::File;
use std::path::Path;

use super::reader::Records;
use crate::error::{Error, Result};

/// Returns an error that names the feature.
pub(super) fn rows(_: File, path: &Path) -> Result<Box<dyn Records>> {
    let why = "is a Parquet file, which this build cannot read: build it with the feature parquet, or convert the file to \
               JSON lines (to_json of datasets)";
    Err(Error::file(path, why))
}
