//! Free space on the disk.

use std::path::Path;

use super::names::Repo;
use crate::error::{Error, Result, size};

/// Returns an error if the cache's disk has too little free space for a download.
pub(super) fn check(cache: &Path, repo: &Repo, bytes: u64) -> Result<()> {
    match free(cache) {
        Some(free) if free < bytes => Err(Error::hub(
            repo,
            format!(
                "needs {} more, but the disk of {} has {} free: make room, or set HF_HOME to a folder on another disk",
                size(bytes),
                cache.display(),
                size(free)
            ),
        )),
        _ => Ok(()),
    }
}

/// The number of free bytes on the disk of `dir`, if the system reports it.
#[cfg(unix)]
fn free(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
