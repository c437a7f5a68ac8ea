//! What a checkpoint keeps beside weights and optimiser: all that the rest of the run depends on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::annotation::VerdictTotals;
use super::checkpoint::STATE;
use super::identity::{Change, RunIdentity};
use super::sampler::Sampled;
use crate::error::{Error, Result};
use crate::files;

/// A checkpoint's `state.json`, as it was when its last step was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Steps done.
    pub step: usize,
    pub logs: Logs,
    pub counters: Counters,
    pub identity: RunIdentity,
    /// What was changed where the run was resumed.
    pub changes: Vec<Change>,
    /// In online training.
    pub online: Option<OnlineState>,
}

/// What the run's folder must hold in its logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Logs {
    /// Steps that were done before the first row: those of another folder's run that this one began from.
    pub after_step: usize,
    /// Rows of `pairs.jsonl`.
    pub pairs: usize,
}

/// Sums over the steps done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counters {
    pub num_tokens: u64,
    /// Updates with a gradient, by a learning rate above 0.
    pub updates: usize,
    pub non_finite: usize,
    pub non_finite_in_row: usize,
    /// Steps that taught nothing.
    pub idle: usize,
    pub idle_in_row: usize,
    /// The rows that those in a row took.
    pub idle_rows_in_row: usize,
}

/// What online training keeps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnlineState {
    pub verdicts: VerdictTotals,
    /// The next step's answers, where they were drawn before the last update.
    pub sampled: Option<Sampled>,
}

impl State {
    /// Reads the state of the checkpoint in `dir`.
    ///
    /// # Errors
    /// [`Error::File`] that names the file and the key that is missing or of another type.
    pub fn read(dir: &Path) -> Result<State> {
        let path = dir.join(STATE);
        let bytes = files::read(&path)?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        serde_path_to_error::deserialize(&mut json).map_err(|e| {
            let (key, why) = (e.path().to_string(), e.inner().to_string());
            // The place in the file says less than the key.
            let why = why.split(" at line ").next().unwrap_or_default();
            let place = if key == "." { String::new() } else { format!("{key}: ") };
            let why = format!("is no state of a run ({place}{why}): resume from another checkpoint");
            Error::file(&path, why)
        })
    }

    /// Writes the state into the folder of a checkpoint.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("JSON of plain values");
        files::write_atomic(&dir.join(STATE), format!("{text}\n").as_bytes())
    }
}
