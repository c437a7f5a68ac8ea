//! Without the feature `http`, names on the Hub are recognised but refused.

use std::path::{Path, PathBuf};

use super::{What, is_file_of_rows};
use crate::error::{Error, Result};

/// Whether `text` has the form of a name, as ORG/NAME.
pub fn has_form(what: What, text: &str) -> bool {
    let Some((org, name)) = text.split_once('/') else { return false };
    let plain = |part: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(good)
    };
    plain(org) && plain(name) && !(what == What::Rows && is_file_of_rows(name))
}

/// Returns the error that downloads are not available.
pub fn fetch(flag: &str, what: What, given: &Path) -> Result<(Vec<PathBuf>, String)> {
    let shown = given.to_string_lossy();
    let shown = shown.trim_start_matches(super::SCHEME);
    let name = shown.rsplit('/').next().unwrap_or_default();
    let why = match what {
        What::Rows => format!(
            "{shown} is not a file, and this program was built without downloads (the feature http): get it with `hf download \
             {shown} --repo-type dataset --local-dir {name}`, then give a file of it"
        ),
        _ => format!(
            "{shown} is not a folder, and this program was built without downloads (the feature http): get it with `hf \
             download {shown} --local-dir {name}`, then give {flag} {name}"
        ),
    };
    Err(Error::config(flag, why))
}
