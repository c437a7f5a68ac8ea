//! A trainer's checkpoint without a run folder: on disk or in memory.

use std::path::Path;

use super::checkpoint::{CHECKSUMS, all_files, is_of, seal, verify};
use super::state::State;
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::files;

/// The subfolder in which a checkpoint is written until it is complete.
const PART: &str = ".saving.tmp";

/// Completes an interrupted save: moves the files of a complete checkpoint to their place, and removes those of an
/// incomplete one.
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
    /// Writes a checkpoint for [`Trainer::resume`] into the folder `dir`, which may be in memory
    /// ([`MemoryFolder`](crate::files::MemoryFolder)). If that fails, an earlier checkpoint in it is kept.
    ///
    /// # Errors
    /// [`Error::Config`] while a step has changed the weights and is not finished; [`Error::SelfCheck`] for weights
    /// that are not finite; [`Error::Io`]; [`Error::DeviceLost`].
    pub async fn save(&self, dir: &Path) -> Result<()> {
        self.policy().model.gpu().check("a checkpoint")?;
        self.check_resumed()?;
        if !self.is_between_steps() {
            return Err(Error::config("save", "a step is not finished: call step again before saving"));
        }
        if self.is_sharded() {
            let why = "is not supported by save: turn it off, or train in a run folder";
            return Err(Error::config("shard-optim", why));
        }
        files::create_dir_all(dir)?;
        let part = dir.join(PART);
        finish_saving(dir)?;
        if let Err(error) = self.write_checkpoint(&part).await {
            // Only the first error is reported.
            let _ = files::remove(&part);
            return Err(error);
        }
        // From here on, the new checkpoint is valid, whichever folder its files are in.
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

    /// Resumes from a checkpoint that [`Trainer::save`] wrote, with the same options, rows and judge, before the first
    /// step. Training continues with the same bits on the same device. If this fails, the trainer is unchanged, or it
    /// takes no step until it is resumed successfully.
    ///
    /// # Errors
    /// [`Error::Config`] naming the difference, or if a step has already started; errors of the files, whose checksums
    /// must match.
    pub fn resume(&mut self, dir: &Path) -> Result<()> {
        if self.has_begun() {
            return Err(Error::config(
                "resume",
                "a step has already started: create a new trainer and resume that",
            ));
        }
        let allowed = self.options().allow_changes.clone();
        finish_saving(dir)?;
        verify(dir)?;
        let state = State::read(dir)?.into_resumed(self.identity()?, &allowed, self.total_steps())?;
        self.restore(dir, state.step, state.counters, state.online)
    }
}
