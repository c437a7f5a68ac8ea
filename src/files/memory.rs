//! Folders in memory with their own paths, for models that do not come from a disk, and for browsers, which have none.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The prefix of their paths.
const PREFIX: &str = "memory:";

/// The content of the files in memory, by path.
static FILES: Mutex<BTreeMap<PathBuf, Arc<[u8]>>> = Mutex::new(BTreeMap::new());
static FOLDERS: AtomicU64 = AtomicU64::new(0);

fn files() -> MutexGuard<'static, BTreeMap<PathBuf, Arc<[u8]>>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a path is in memory.
pub(super) fn holds(path: &Path) -> bool {
    let first = path.components().next();
    first.is_some_and(|first| first.as_os_str().to_string_lossy().starts_with(PREFIX))
}

pub(super) fn get(path: &Path) -> Option<Arc<[u8]>> {
    files().get(path).cloned()
}

pub(super) fn put(path: &Path, content: Vec<u8>) {
    files().insert(path.to_owned(), content.into());
}

/// Removes a file, or a folder with its content.
pub(super) fn remove(path: &Path) {
    files().retain(|file, _| !file.starts_with(path));
}

/// Changes the path of a file.
pub(super) fn rename(from: &Path, to: &Path) {
    let mut files = files();
    if let Some(content) = files.remove(from) {
        files.insert(to.to_owned(), content);
    }
}

/// Whether there is a file below `path`.
pub(super) fn is_dir(path: &Path) -> bool {
    files().keys().any(|file| file != path && file.starts_with(path))
}

/// The files and folders directly below `path`, sorted.
pub(super) fn list(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = files()
        .keys()
        .filter_map(|file| Some(path.join(file.strip_prefix(path).ok()?.components().next()?)))
        .collect();
    found.dedup();
    found
}

/// A folder in memory, which exists until it is dropped. Its path is accepted wherever models are read or written by
/// path.
///
/// ```
/// # fn main() -> oaif::Result<()> {
/// let folder = oaif::files::MemoryFolder::new([("config.json", b"{}".to_vec())]);
/// assert_eq!(oaif::unstable::files::read(&folder.path().join("config.json"))?, b"{}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryFolder {
    path: PathBuf,
}

/// An empty folder.
impl Default for MemoryFolder {
    fn default() -> MemoryFolder {
        MemoryFolder::new::<&str>([])
    }
}

impl MemoryFolder {
    /// Creates a folder with these files, by name.
    pub fn new<N: AsRef<Path>>(files: impl IntoIterator<Item = (N, Vec<u8>)>) -> MemoryFolder {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = MemoryFolder { path: PathBuf::from(format!("{PREFIX}{number}")) };
        files.into_iter().for_each(|(name, content)| folder.insert(name, content));
        folder
    }

    /// Adds or replaces a file. Only the normal components of the name count, so the file is always below the folder.
    pub fn insert(&self, name: impl AsRef<Path>, content: Vec<u8>) {
        let below = |part: &Component| matches!(part, Component::Normal(_));
        let name: PathBuf = name.as_ref().components().filter(below).collect();
        put(&self.path.join(name), content);
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files by name, including those in subfolders.
    pub fn files(&self) -> Vec<(PathBuf, Arc<[u8]>)> {
        let name = |path: &PathBuf| path.strip_prefix(&self.path).ok().map(Path::to_owned);
        files().iter().filter_map(|(path, content)| Some((name(path)?, content.clone()))).collect()
    }
}

impl Drop for MemoryFolder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}
