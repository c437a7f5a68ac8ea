//! Checkpoints: folders that are either complete or absent, each with the checksums of its files.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::files;

pub(super) const CHECKPOINTS: &str = "checkpoints";
/// The file name of a checkpoint's trainer state.
pub(super) const STATE: &str = "state.json";
pub(super) const CHECKSUMS: &str = "checksums.json";

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: usize,
    /// Its folder.
    pub path: PathBuf,
}

/// `checksums.json`: the files of a checkpoint by their relative paths. It does not list itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checksums {
    files: BTreeMap<String, Checksum>,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checksum {
    bytes: u64,
    xxh3: Digest,
}

impl Checksum {
    fn of(path: &Path) -> Result<Checksum> {
        Ok(Checksum { bytes: files::length(path)?, xxh3: Digest::of_file(path)? })
    }
}

impl Checkpoint {
    /// Opens the checkpoint in the folder `path` and verifies each of its files.
    ///
    /// # Errors
    /// [`Error::File`] for a folder that is not a checkpoint, and for a missing or changed file; the message names the
    /// last intact checkpoint before this one.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        if !path.join(STATE).exists() && !path.join(CHECKSUMS).exists() {
            let why = format!(
                "is not a checkpoint (it has no {STATE}): set `resume-from-checkpoint` to a folder RUN/{CHECKPOINTS}/step-NNNNNN or to last"
            );
            return Err(Error::file(path, why));
        }
        let whole = verify(path).and_then(|()| step_in(path));
        let step = whole.map_err(|error| match before(path) {
            Some(whole) => damaged(
                error,
                &format!(
                    "resume from the last intact checkpoint with `resume-from-checkpoint` {}",
                    whole.display()
                ),
            ),
            None => damaged(error, "no earlier checkpoint is intact: start a new run"),
        })?;
        // Resuming removes later checkpoints by their names, so the name must be correct.
        if let Some(named) = step_of_name(path).filter(|named| *named != step) {
            let why = format!("was written after step {step}, not {named}: rename it to step-{step:06}");
            return Err(Error::file(path, why));
        }
        Ok(Checkpoint { step, path: path.to_owned() })
    }
}

fn damaged(error: Error, way_out: &str) -> Error {
    match error {
        Error::File { path, why } => Error::File { path, why: format!("{why}: {way_out}") },
        other => other,
    }
}

/// Reads the checksums of the checkpoint in `dir`; `None` if there are none.
fn checksums(dir: &Path) -> Result<Option<Checksums>> {
    let path = dir.join(CHECKSUMS);
    if !files::exists(&path) {
        return Ok(None);
    }
    let found = serde_json::from_slice(&files::read(&path)?);
    found.map(Some).map_err(|e| Error::file(&path, format!("is damaged ({e})")))
}

/// Whether the file `path` has the checksum listed for `name` in the checkpoint in `dir`.
pub(super) fn is_of(dir: &Path, name: &Path, path: &Path) -> Result<bool> {
    // A damaged checkpoint matches nothing.
    let Ok(Some(Checksums { files })) = checksums(dir) else { return Ok(false) };
    match files.get(&listed(name)) {
        Some(expected) => Ok(Checksum::of(path)? == *expected),
        None => Ok(false),
    }
}

/// The name under which a relative path is listed, the same on every operating system.
fn listed(name: &Path) -> String {
    let parts = name.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>();
    parts.join("/")
}

/// Compares every file with its checksum.
pub(super) fn verify(dir: &Path) -> Result<()> {
    let missing = |path: &Path| Error::file(path, "is missing: the checkpoint is damaged");
    let path = dir.join(CHECKSUMS);
    let Some(Checksums { files }) = checksums(dir)? else { return Err(missing(&path)) };
    for (name, expected) in files.iter().filter(|(name, _)| *name != CHECKSUMS) {
        let path = dir.join(name);
        if !files::exists(&path) {
            return Err(missing(&path));
        }
        let length = files::length(&path)?;
        if length != expected.bytes {
            let why = format!("has {length} bytes instead of {}: it is damaged", expected.bytes);
            return Err(Error::file(&path, why));
        }
        if Digest::of_file(&path)? != expected.xxh3 {
            return Err(Error::file(&path, "is damaged (its checksum has changed)"));
        }
    }
    match files.contains_key(STATE) {
        true => Ok(()),
        false => Err(Error::file(&path, format!("is damaged (it does not list {STATE})"))),
    }
}

/// The step in the state of a checkpoint.
fn step_in(dir: &Path) -> Result<usize> {
    let path = dir.join(STATE);
    let step = files::read_json(&path)?["step"].as_u64().and_then(|step| step.try_into().ok());
    step.ok_or_else(|| Error::file(&path, "has no \"step\": it is damaged"))
}

/// The last intact checkpoint before the one at `path`.
fn before(path: &Path) -> Option<PathBuf> {
    let step = step_of_name(path)?;
    let mut earlier = in_folder(path.parent()?).ok()?;
    earlier.retain(|checkpoint| checkpoint.step < step);
    earlier.into_iter().rev().map(|checkpoint| checkpoint.path).find(|path| verify(path).is_ok())
}

fn step_of_name(path: &Path) -> Option<usize> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// The checkpoints in a folder, oldest first. They are not verified: a folder gets such a name only when it is
/// complete.
pub(super) fn in_folder(dir: &Path) -> Result<Vec<Checkpoint>> {
    let checkpoint = |path: PathBuf| Some(Checkpoint { step: step_of_name(&path)?, path });
    let mut found: Vec<Checkpoint> = files::list(dir)?.into_iter().filter_map(checkpoint).collect();
    found.sort_by_key(|checkpoint| checkpoint.step);
    Ok(found)
}

/// The checkpoints of the run in the folder `run`, oldest first.
pub fn checkpoints(run: &Path) -> Result<Vec<Checkpoint>> {
    in_folder(&run.join(CHECKPOINTS))
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub(super) struct PendingCheckpoint {
    step: usize,
    path: PathBuf,
}

impl PendingCheckpoint {
    /// Creates an empty checkpoint after `step` steps in `dir`.
    pub(super) fn new(dir: &Path, step: usize) -> Result<PendingCheckpoint> {
        let path = dir.join(format!(".step-{step:06}.tmp"));
        files::remove(&path)?;
        // Creates only these two folders: if the run folder was removed, it must not reappear with nothing but a
        // checkpoint.
        if !dir.exists() {
            fs::create_dir(dir).map_err(Error::io("create", dir))?;
        }
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(PendingCheckpoint { step, path })
    }

    /// The folder to write into.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The final location.
    pub(super) fn committed(&self) -> Checkpoint {
        let path = self.path.with_file_name(format!("step-{:06}", self.step));
        Checkpoint { step: self.step, path }
    }

    /// Writes the checksums, syncs everything to disk, and renames the folder to its final name.
    pub(super) fn commit(self) -> Result<()> {
        assert_eq!(step_in(&self.path)?, self.step, "state.json belongs to another step");
        seal(&self.path)?;
        sync_tree(&self.path)?;
        let path = self.committed().path;
        fs::rename(&self.path, &path).map_err(Error::io("write", &path))
    }
}

impl Drop for PendingCheckpoint {
    fn drop(&mut self) {
        // The folder no longer exists after a commit. If removing fails here, the next start removes it.
        let _ = files::remove(&self.path);
    }
}

/// Writes the checksums of the files in `dir`.
pub(super) fn seal(dir: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for path in all_files(dir)? {
        let name = listed(path.strip_prefix(dir).expect("found below it"));
        if name != CHECKSUMS {
            files.insert(name, Checksum::of(&path)?);
        }
    }
    let text = serde_json::to_string_pretty(&Checksums { files }).expect("JSON of plain values");
    files::write_atomic(&dir.join(CHECKSUMS), format!("{text}\n").as_bytes())
}

pub(super) fn all_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in files::list(dir)? {
        match files::is_dir(&path) {
            true => found.extend(all_files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

/// Syncs everything below `dir` to disk.
fn sync_tree(dir: &Path) -> Result<()> {
    for path in files::list(dir)? {
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            // Opened for writing, because Windows cannot sync a read-only handle.
            let file = OpenOptions::new().write(true).open(&path);
            file.and_then(|file| file.sync_all()).map_err(Error::io("sync", &path))?;
        }
    }
    files::sync_dir(dir)
}
