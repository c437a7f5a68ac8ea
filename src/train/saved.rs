//! A trainer's checkpoint without a run's folder: on disk, or in memory.

use std::path::Path;

use super::checkpoint::{CHECKSUMS, all_files, is_of, seal, verify};
use super::state::State;
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::files;

/// Where a checkpoint is written until it is whole.
const PART: &str = ".saving.tmp";

/// Brings files of the checkpoint in `dir` to their place, where a save was interrupted while it did so. What else such a save
/// has left, a checkpoint that was not whole, goes.
fn finish_saving(dir: &Path) -> Result<()> {
    let part = dir.join(PART);
    for path in all_files(&part)? {
        let name = path.strip_prefix(&part).expect("found below it");
        if is_of(dir, name, &path)? {
            files::rename(&path, &dir.join(name))?;
        }
    }
    files::remove(&part)
}

impl Trainer<'_> {
    /// Writes what [`Trainer::resume`] goes on from into the folder `dir`, which may be in memory
    /// ([`MemoryFolder`](crate::files::MemoryFolder)). Where that fails, an earlier checkpoint that is there stays.
    ///
    /// # Errors
    /// [`Error::Config`] while a step has moved the weights and is not finished; [`Error::SelfCheck`] for weights that are not
    /// finite; [`Error::Io`]; [`Error::DeviceLost`].
    pub async fn save(&self, dir: &Path) -> Result<()> {
        self.policy().model.gpu().check("a checkpoint")?;
        self.check_resumed()?;
        if !self.is_between_steps() {
            return Err(Error::config("save", "a step is not finished: take it first"));
        }
        if self.is_sharded() {
            let why = "divides the optimiser's state, which a run alone can save";
            return Err(Error::config("shard-optim", why));
        }
        files::create_dir_all(dir)?;
        let part = dir.join(PART);
        finish_saving(dir)?;
        if let Err(error) = self.write_checkpoint(&part).await {
            // The first error is the one worth telling.
            let _ = files::remove(&part);
            return Err(error);
        }
        // From here on it is the checkpoint, wherever its files are.
        files::rename(&part.join(CHECKSUMS), &dir.join(CHECKSUMS))?;
        for path in all_files(&part)? {
            files::rename(&path, &dir.join(path.strip_prefix(&part).expect("found below it")))?;
        }
        files::remove(&part)
    }

    async fn write_checkpoint(&self, dir: &Path) -> Result<()> {
        files::create_dir_all(dir)?;
        self.save_into(dir, &self.policy().dir).await?;
        let mut state = State::new(self.identity()?, self.policy().model.gpu().tuning());
        self.note_in(&mut state);
        state.write(dir)?;
        seal(dir)
    }

    /// Goes on from what [`Trainer::save`] wrote, of a training with the same options, rows and judge, before the first
    /// step: to the same bits on the same device. Where that fails, the trainer is as it was, or else takes no step until it has
    /// been resumed.
    ///
    /// # Errors
    /// [`Error::Config`] naming what differs, and where a step has begun already; what is wrong with the files, each of which
    /// must be as it was written.
    pub fn resume(&mut self, dir: &Path) -> Result<()> {
        if self.has_begun() {
            return Err(Error::config(
                "resume",
                "a step has begun already: begin a new trainer, then resume it",
            ));
        }
        let allowed = self.options().allow_changes.clone();
        finish_saving(dir)?;
        verify(dir)?;
        let state = State::read(dir)?.go_on(self.identity()?, &allowed, self.total_steps())?;
        self.restore(dir, state.step, state.counters, state.online)
    }
}
