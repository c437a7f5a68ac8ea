//! A trainer's checkpoint without a run's folder: on disk, or in memory.

use std::path::Path;

use super::state::State;
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::files;

impl Trainer<'_> {
    /// Writes what [`Trainer::resume`] goes on from into the folder `dir`, which may be in memory
    /// ([`MemoryFolder`](crate::files::MemoryFolder)).
    ///
    /// # Errors
    /// [`Error::Config`] while a step has moved the weights and is not finished; [`Error::SelfCheck`] for weights that are not
    /// finite; [`Error::Io`].
    pub async fn save(&self, dir: &Path) -> Result<()> {
        if !self.is_between_steps() {
            return Err(Error::config("save", "a step is not finished: take it first"));
        }
        files::create_dir_all(dir)?;
        self.save_into(dir, &self.policy().dir).await?;
        let mut state = State::new(self.identity()?, self.policy().model.gpu().tuning());
        self.note_in(&mut state);
        state.write(dir)
    }

    /// Goes on from what [`Trainer::save`] wrote, of a training with the same options, rows and annotator, before the first
    /// step: to the same bits on the same device. After an error that is about the files, begin a new trainer.
    ///
    /// # Errors
    /// [`Error::Config`] naming what differs, and where a step has begun already; what is wrong with the files.
    pub fn resume(&mut self, dir: &Path) -> Result<()> {
        if self.has_begun() {
            return Err(Error::config(
                "resume",
                "a step has begun already: begin a new trainer, then resume it",
            ));
        }
        let allowed = self.options().allow_changes.clone();
        let state = State::read(dir)?.go_on(self.identity()?, &allowed, self.total_steps())?;
        self.restore(dir, state.step, state.counters, state.online)
    }
}
