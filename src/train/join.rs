//! How a rank takes part in a run: rank 0 works in the run's folder, each other one in a folder of its own, with a copy of
//! what it needs of the run's, which is gone at the end.

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

/// Bytes that are sent at a time.
const PIECE: u64 = 64 << 20;

/// Options of a run, as one of its ranks has them.
pub struct Joined {
    /// To train by.
    pub options: TrainOptions,
    /// Where a rank other than 0 works; it is removed as this is dropped.
    pub folder: Option<TempDir>,
}

/// A file that is copied: its path below the folder that it is copied from.
#[derive(Serialize, Deserialize)]
struct Copied {
    name: String,
    bytes: u64,
}

impl TrainOptions {
    /// Trains together with the other `ranks`, each of which calls this. A run that goes on from a checkpoint takes as many
    /// rows in a step as before, however many ranks there are.
    ///
    /// # Errors
    /// What is wrong with the checkpoint; [`Error::Io`]; where another rank fails.
    pub async fn join(mut self, ranks: Ranks) -> Result<Joined> {
        let begins = (self.overwrite, self.resume.is_some());
        let all: Vec<(bool, bool)> = ranks.gather(Ok(begins)).await?;
        if let Some(rank) = all.iter().position(|other| *other != all[0]) {
            let why = format!("are others on rank {rank} than on rank 0: start all ranks with the same");
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

    /// Copies what is there of the run from rank 0 to the others, and has them work there.
    async fn copy(&mut self, checkpoint: Option<PathBuf>) -> Result<Option<TempDir>> {
        let here = match self.ranks.leads() {
            true => None,
            false => Some(tempfile::tempdir().map_err(Error::io("create", &std::env::temp_dir()))?),
        };
        let run = here.as_ref().map(|dir| dir.path().join("run"));
        // Of a run that is to be replaced nothing is needed.
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

/// Copies files, and all within folders, that lie below `from` on rank 0 to the same places below `to` on the others.
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
            // One piece at a time is on its way.
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
        let name = name.to_str().ok_or_else(|| Error::file(path, "has a name that is no text"))?.to_owned();
        found.push(Copied { name, bytes: files::length(path)? });
    }
    Ok(found)
}
