//! What `run.json` says of a run.

use serde::Serialize;
use serde_json::{Map, Value};

use super::identity::Change;
use super::state::State;
use super::trainer::Trainer;
use crate::gpu::{GpuSummary, MemoryReport, Tuning};

/// `run.json`: the resolved configuration, and these facts.
#[derive(Default, Serialize)]
pub(crate) struct RunFile {
    #[serde(flatten)]
    config: Map<String, Value>,
    /// The kind of training.
    command: String,
    /// Where it was begun.
    working_dir: Option<String>,
    oaif_version: &'static str,
    /// What it runs on.
    gpu_device: Option<GpuSummary>,
    gpu_tier: String,
    /// Which variants of its kernels.
    pub(super) kernels: Option<Tuning>,
    total_steps: usize,
    /// Rows that a step takes, for all ranks.
    rows_per_step: usize,
    /// Processes that train together.
    ranks: usize,
    memory: Option<MemoryReport>,
    /// What its rows are, see [`EncodedRows::statistics`](super::rows::EncodedRows::statistics).
    rows: Value,
    /// What was changed where it was resumed.
    changes: Vec<Change>,
    /// What its user was warned of.
    pub(super) warnings: Vec<String>,
}

impl RunFile {
    pub(super) fn new(config: &Value, state: &State, trainer: &Trainer<'_>) -> RunFile {
        let gpu = trainer.policy().model.gpu();
        let mut config = config.as_object().cloned().unwrap_or_default();
        // The demo has its own.
        let command = config.shift_remove("command").and_then(|c| c.as_str().map(str::to_owned));
        let mut file = RunFile {
            command: command.unwrap_or_else(|| state.identity.command.name().to_owned()),
            working_dir: std::env::current_dir().ok().map(|dir| dir.to_string_lossy().into_owned()),
            oaif_version: env!("CARGO_PKG_VERSION"),
            gpu_device: Some(gpu.summary().clone()),
            gpu_tier: gpu.tier().to_string(),
            kernels: Some(gpu.tuning()),
            total_steps: trainer.total_steps(),
            rows_per_step: trainer.options().rows_of_step(),
            ranks: trainer.options().ranks.size(),
            memory: Some(gpu.memory()),
            rows: trainer.rows().statistics(),
            changes: state.changes.clone(),
            ..RunFile::default()
        };
        // A configuration may have a key of the same name.
        RunFile::facts().for_each(|name| drop(config.shift_remove(&name)));
        file.config = config;
        file
    }

    /// The names of the facts in `run.json`.
    pub(crate) fn facts() -> impl Iterator<Item = String> {
        let Ok(Value::Object(map)) = serde_json::to_value(RunFile::default()) else {
            unreachable!("a struct of plain values")
        };
        map.into_iter().map(|(name, _)| name)
    }
}
