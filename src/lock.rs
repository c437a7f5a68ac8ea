//! One process at a time in the folder of a run or of an evaluation.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// The right to write into a folder, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: Option<File>,
}

impl Lock {
    /// Locks a folder that is there.
    ///
    /// # Errors
    /// [`Error::File`] where another process holds it.
    pub fn take(dir: &Path) -> Result<Lock> {
        let file = open(dir).map_err(|e| Error::file(dir, unwritable(&e)))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file: Some(file) }),
            Err(TryLockError::WouldBlock) => {
                let who = holder(&file).map_or("another process".into(), |id| format!("process {id}"));
                let why = format!("is in use by {who}: wait for its end, or give another output folder");
                Err(Error::file(dir, why))
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(_)) => Ok(Lock { file: None }),
        }
    }
}

impl Drop for Lock {
    /// A child process that is just being started has the file, too: closed here alone it would stay locked.
    fn drop(&mut self) {
        let _ = self.file.as_ref().map(File::unlock);
    }
}

/// Why a folder is no place for results.
pub(crate) fn unwritable(error: &std::io::Error) -> String {
    format!("cannot be written to ({error}): give another output folder")
}

/// The folder itself, so that nothing is left in it.
#[cfg(unix)]
fn open(dir: &Path) -> std::io::Result<File> {
    File::open(dir)
}

/// Windows locks files alone.
#[cfg(not(unix))]
fn open(dir: &Path) -> std::io::Result<File> {
    File::options().create(true).write(true).truncate(false).open(dir.join(".lock"))
}

/// The process that holds the lock of `file`, where the system tells.
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
    fn a_folder_is_locked_once_and_free_again_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is in use by") && error.contains("another output folder"), "{error}");
        if cfg!(target_os = "linux") && std::path::Path::new("/proc/locks").exists() {
            assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        }
        drop(lock);
        Lock::take(dir.path()).unwrap();
        #[cfg(unix)]
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
