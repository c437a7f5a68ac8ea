//! Locks, which ensure that only one process at a time writes to the folder of a run or an evaluation.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// The exclusive right to write to a folder, held until it is dropped or the process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock {
    file: Option<File>,
}

impl Lock {
    /// Locks an existing folder.
    ///
    /// # Errors
    /// [`Error::File`] if another process holds the lock.
    pub fn take(dir: &Path) -> Result<Lock> {
        let file = open(dir).map_err(|e| Error::file(dir, unwritable(&e)))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file: Some(file) }),
            Err(TryLockError::WouldBlock) => {
                let who = holder(&file).map_or("another process".into(), |id| format!("process {id}"));
                let why = format!("is in use by {who}: wait until it ends, or give another folder");
                Err(Error::file(dir, why))
            }
            // Some network file systems do not support locks.
            Err(TryLockError::Error(_)) => Ok(Lock { file: None }),
        }
    }
}

impl Drop for Lock {
    /// Unlocks explicitly: a child process that is being started may share the file, and closing it here would not
    /// unlock it.
    fn drop(&mut self) {
        let _ = self.file.as_ref().map(File::unlock);
    }
}

/// The message about a folder that cannot be written to.
pub(crate) fn unwritable(error: &std::io::Error) -> String {
    format!("cannot be written to ({error}): give another folder")
}

/// Opens the folder itself, so that no lock file is left in it.
#[cfg(unix)]
fn open(dir: &Path) -> std::io::Result<File> {
    File::open(dir)
}

/// Windows can lock only files.
#[cfg(not(unix))]
fn open(dir: &Path) -> std::io::Result<File> {
    File::options().create(true).write(true).truncate(false).open(dir.join(".lock"))
}

/// The process that holds the lock of `file`, if the system reports it.
#[cfg(target_os = "linux")]
fn holder(file: &File) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let inode = file.metadata().ok()?.ino().to_string();
    // "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let mut lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let held = |fields: &Vec<&str>| {
        fields.get(1) == Some(&"FLOCK") && fields.get(5).and_then(|f| f.rsplit(':').next()) == Some(&inode)
    };
    lines.find(held)?.get(4)?.parse().ok().filter(|id| *id > 0)
}

#[cfg(not(target_os = "linux"))]
fn holder(_: &File) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_by_one_process_until_the_lock_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is in use by") && error.contains("give another folder"), "{error}");
        if cfg!(target_os = "linux") && std::path::Path::new("/proc/locks").exists() {
            assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        }
        drop(lock);
        Lock::take(dir.path()).unwrap();
        #[cfg(unix)]
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
