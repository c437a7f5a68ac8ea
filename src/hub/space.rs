//! Room on the disk.

use std::path::Path;

use super::names::Repo;
use crate::error::{Error, Result, size};

/// Refuses to download what the cache's disk has no room for.
pub(super) fn check(cache: &Path, repo: &Repo, bytes: u64) -> Result<()> {
    match free(cache) {
        Some(free) if free < bytes => Err(Error::hub(
            repo,
            format!(
                "needs {} more, and the disk of {} has {} free: make room, or set HF_HOME to a folder on another disk",
                size(bytes),
                cache.display(),
                size(free)
            ),
        )),
        _ => Ok(()),
    }
}

/// Bytes that can be written below `dir`, where the system tells.
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
