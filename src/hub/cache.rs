//! The folders of the cache, in the layout of `huggingface_hub`:
//!
//! ```text
//! models--ORG--NAME/blobs/ETAG                     content, by its hash
//!                   blobs/ETAG.incomplete          the part received so far
//!                   refs/main                      the commit of a branch or tag
//!                   snapshots/COMMIT/FILE          a link to the content
//! .locks/models--ORG--NAME/ETAG.lock               held by the process that downloads it
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::Watch;
use super::names::{Commit, Etag, Repo, unsafe_name};
use crate::error::{Error, Result};
use crate::files;

/// The limits of reading a snapshot: the depth of its folders, and the number of files.
const DEPTH: usize = 8;
const MOST_FILES: usize = 100_000;

/// The tag by which backup tools recognise a cache and skip it.
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of downloads.\n";

/// The part of the cache that belongs to one repository.
#[derive(Debug)]
pub(super) struct RepoCache {
    home: PathBuf,
    folder: PathBuf,
    locks: PathBuf,
}

/// The exclusive right to download some content, held until it is dropped or the process ends.
pub(super) struct Lock(Option<File>);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.as_ref().map(File::unlock);
    }
}

impl RepoCache {
    pub fn of(home: &Path, repo: &Repo) -> RepoCache {
        let name = repo.folder();
        RepoCache { home: home.to_owned(), folder: home.join(&name), locks: home.join(".locks").join(name) }
    }

    /// The root folder of the cache.
    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn blob(&self, etag: &Etag) -> PathBuf {
        self.folder.join("blobs").join(&etag.0)
    }

    /// The path of partly downloaded content. Without a lock, each process needs its own.
    pub fn incomplete(&self, etag: &Etag, lock: &Lock) -> PathBuf {
        match lock.0 {
            Some(_) => self.blob(&Etag(format!("{}.incomplete", etag.0))),
            None => self.blob(&Etag(format!("{}.{}.incomplete", etag.0, std::process::id()))),
        }
    }

    /// The number of bytes that an earlier download left.
    pub fn received(&self, etag: &Etag) -> u64 {
        let part = self.blob(&Etag(format!("{}.incomplete", etag.0)));
        fs::metadata(self.blob(etag)).or_else(|_| fs::metadata(part)).map_or(0, |found| found.len())
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.folder.join("snapshots").join(&commit.0)
    }

    /// The path of a file of a commit. `name` must be safe.
    pub fn pointer(&self, commit: &Commit, name: &str) -> PathBuf {
        debug_assert!(unsafe_name(name).is_none(), "{name:?}");
        self.snapshot(commit).join(name)
    }

    /// The commit that a revision refers to, if it is known.
    pub fn commit(&self, revision: &str) -> Option<Commit> {
        let commit = Commit::parse(revision).or_else(|| {
            let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
            Commit::parse(text.trim())
        })?;
        self.snapshot(&commit).is_dir().then_some(commit)
    }

    /// Records the commit of a branch or tag.
    pub fn write_ref(&self, revision: &str, commit: &Commit) -> Result<()> {
        if Commit::parse(revision).is_some() {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        if fs::read(&path).is_ok_and(|text| text == commit.0.as_bytes()) {
            return Ok(());
        }
        files::create_dir_all(path.parent().expect("below refs"))?;
        write(&path, commit.0.as_bytes())
    }

    /// The existing files of a commit, sorted.
    pub fn names(&self, commit: &Commit) -> Vec<String> {
        let mut names = Vec::new();
        collect(&self.snapshot(commit), "", DEPTH, &mut names);
        names.sort();
        names
    }

    /// Tags the folder as a cache.
    pub fn mark(&self) -> Result<()> {
        files::create_dir_all(&self.home)?;
        let tag = self.home.join("CACHEDIR.TAG");
        if tag.exists() { Ok(()) } else { write(&tag, TAG.as_bytes()) }
    }

    /// Waits until no other process is downloading this content, and locks it.
    pub fn lock(&self, etag: &Etag, watch: &mut dyn Watch) -> Result<Lock> {
        files::create_dir_all(&self.locks)?;
        files::create_dir_all(&self.folder.join("blobs"))?;
        let path = self.locks.join(format!("{}.lock", etag.0));
        let file = File::options().create(true).write(true).truncate(false).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                watch.warning("another process downloads the same file: waiting for it");
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        // Some network file systems do not support locks.
        Ok(Lock(locked.is_ok().then_some(file)))
    }

    /// Adds content to the files of a commit.
    pub fn link(&self, commit: &Commit, name: &str, etag: &Etag) -> Result<()> {
        let pointer = self.pointer(commit, name);
        files::create_dir_all(pointer.parent().expect("below snapshots"))?;
        let failed = Error::io("create", &pointer);
        if pointer.is_file() {
            return Ok(());
        }
        // A link to content that no longer exists.
        files::remove(&pointer)?;
        let up = "../".repeat(2 + name.matches('/').count());
        let target = format!("{up}blobs/{}", etag.0);
        symlink(Path::new(&target), &pointer)
            .or_else(|_| fs::hard_link(self.blob(etag), &pointer))
            .or_else(|_| fs::copy(self.blob(etag), &pointer).map(|_| ()))
            .map_err(failed)
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// On Windows few users may create links, so the callers fall back to a hard link or a copy.
#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Writes a small file atomically. The mutex is needed since threads of a process share the name of the temporary file.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    files::write_atomic(path, bytes)
}

fn collect(dir: &Path, above: &str, depth: usize, names: &mut Vec<String>) {
    for path in files::list(dir).unwrap_or_default() {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let name = format!("{above}{name}");
        if path.is_file() && unsafe_name(&name).is_none() && names.len() < MOST_FILES {
            names.push(name);
        } else if path.is_dir() && depth > 0 {
            collect(&path, &format!("{name}/"), depth - 1, names);
        }
    }
}
