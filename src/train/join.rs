//! How a process joins a distributed run. Rank 0 works in the run folder. Every other rank works in a temporary folder
//! with copies of the files it needs, which is removed at the end.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::options::TrainOptions;
use super::run_dir::{Resume, Start, resumed_checkpoint};
use super::state::State;
use crate::collective::Ranks;
use crate::error::{Error, Result};
use crate::files;
use crate::judge::ensemble::JUDGES;
use crate::judge::journal::JOURNAL;

/// Bytes sent at a time.
const PIECE: u64 = 64 << 20;

/// The options of a run, as seen by one of its ranks.
pub struct Joined {
    /// The options to train with.
    pub options: TrainOptions,
    /// The temporary folder of a rank other than 0. It is removed on drop.
    pub folder: Option<TempDir>,
}

/// A file to be copied, with its path relative to the source folder.
#[derive(Serialize, Deserialize)]
struct Copied {
    name: String,
    bytes: u64,
}

impl TrainOptions {
    /// Joins the other `ranks`, each of which must make this call. A resumed run takes as many rows per step as before,
    /// whatever the number of ranks.
    ///
    /// # Errors
    /// Errors of the checkpoint; [`Error::Io`]; the failure of another rank.
    pub async fn join(mut self, ranks: Ranks) -> Result<Joined> {
        let begins = (self.overwrite, self.resume.is_some());
        let all: Vec<(bool, bool)> = ranks.gather(Ok(begins)).await?;
        if let Some(rank) = all.iter().position(|other| *other != all[0]) {
            let why = format!("differ between rank {rank} and rank 0: start all ranks with the same flags");
            return Err(ranks.found_by_all(Error::config("flags", why)));
        }
        let checkpoint = match ranks.leads() {
            true => resumed_checkpoint(self.folder(), &self.start()),
            false => Ok(None),
        };
        let began = checkpoint.and_then(|checkpoint| {
            let Some(checkpoint) = checkpoint else { return Ok(None) };
            Ok(Some((State::read(&checkpoint.path)?.identity.ranks(), checkpoint.path)))
        });
        let (at_start, path) = ranks.lead(began).await?.unzip();
        self.ranks_at_start = at_start;
        self.ranks = ranks;
        let folder = match self.ranks.is_alone() || self.output_dir.is_none() {
            true => None,
            false => self.copy(path).await?,
        };
        Ok(Joined { options: self, folder })
    }

    /// Copies the existing files of the run from rank 0 to the other ranks, and lets these work in their copies.
    async fn copy(&mut self, checkpoint: Option<PathBuf>) -> Result<Option<TempDir>> {
        let here = match self.ranks.leads() {
            true => None,
            false => Some(tempfile::tempdir().map_err(Error::io("create", &std::env::temp_dir()))?),
        };
        let run = here.as_ref().map(|dir| dir.path().join("run"));
        // Nothing is needed of a run that is overwritten.
        if self.start() != Start::Overwrite {
            let said = [JOURNAL, JUDGES].map(|name| self.folder().join(name));
            copy(&self.ranks, self.folder(), &said, run.as_deref()).await?;
        }
        if let Some(checkpoint) = checkpoint {
            let kept = here.as_ref().map(|dir| dir.path().join("checkpoint"));
            copy(&self.ranks, &checkpoint, std::slice::from_ref(&checkpoint), kept.as_deref()).await?;
            if let Some(kept) = kept {
                self.resume = Some(Resume::Path(kept));
            }
        } else if run.is_some() {
            self.resume = None;
        }
        if let Some(run) = run {
            self.overwrite = false;
            self.output_dir = Some(run);
        }
        Ok(here)
    }
}

/// Copies files, and folders recursively, from below `from` on rank 0 to the same relative paths below `to` on the
/// other ranks.
async fn copy(ranks: &Ranks, from: &Path, paths: &[PathBuf], to: Option<&Path>) -> Result<()> {
    let listed = match ranks.leads() {
        true => list(from, paths),
        false => Ok(Vec::new()),
    };
    for Copied { name, bytes } in ranks.lead(listed).await? {
        let place = to.map(|to| to.join(&name));
        let created = match &place {
            None => Ok(()),
            Some(place) => files::create_dir_all(place.parent().expect("it has a name"))
                .and_then(|()| fs::write(place, []).map_err(Error::io("write", place))),
        };
        ranks.gather(created).await?;
        let exchanging = ranks.exchanging();
        for first in (0..bytes).step_by(PIECE as usize) {
            let piece = match ranks.leads() {
                true => read(&from.join(&name), first, PIECE.min(bytes - first)),
                false => Ok(Vec::new()),
            };
            ranks.gather(piece.as_ref().map(drop).map_err(|error| Error::Ranks(error.to_string()))).await?;
            let came = ranks.broadcast(piece?).await?;
            let kept = place.as_ref().map_or(Ok(()), |place| append(place, &came));
            // Only one piece is in flight.
            ranks.gather(kept).await?;
        }
        exchanging.done();
    }
    Ok(())
}

fn read(path: &Path, first: u64, bytes: u64) -> Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut piece = vec![0; bytes as usize];
    let (mut file, _) = files::open(path)?;
    let read = file.seek(SeekFrom::Start(first)).and_then(|_| file.read_exact(&mut piece));
    read.map_err(Error::io("read", path))?;
    Ok(piece)
}

fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let file = fs::OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(Error::io("write", path))
}

fn list(from: &Path, paths: &[PathBuf]) -> Result<Vec<Copied>> {
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| path.exists()) {
        if path.is_dir() {
            found.extend(list(from, &files::list(path)?)?);
            continue;
        }
        let name = path.strip_prefix(from).expect("found below it");
        let name =
            name.to_str().ok_or_else(|| Error::file(path, "has a name that is not valid UTF-8"))?.to_owned();
        found.push(Copied { name, bytes: files::length(path)? });
    }
    Ok(found)
}
