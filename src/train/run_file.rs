//! The contents of `run.json`.

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
    /// The working directory in which the run was started.
    working_dir: Option<String>,
    oaif_version: &'static str,
    /// The GPU.
    gpu_device: Option<GpuSummary>,
    gpu_tier: String,
    /// The kernel variants.
    pub(super) kernels: Option<Tuning>,
    total_steps: usize,
    /// Rows per step, for all ranks together.
    rows_per_step: usize,
    /// The number of ranks.
    ranks: usize,
    memory: Option<MemoryReport>,
    /// Statistics of the rows, see [`EncodedRows::statistics`](super::rows::EncodedRows::statistics).
    rows: Value,
    /// Options that changed when the run was resumed.
    changes: Vec<Change>,
    /// Warnings about the run as a whole.
    pub(super) warnings: Vec<String>,
    /// The error that ended the run.
    pub(super) error: Option<String>,
}

impl RunFile {
    pub(super) fn new(config: &Value, state: &State, trainer: &Trainer<'_>) -> RunFile {
        let gpu = trainer.policy().model.gpu();
        let mut config = config.as_object().cloned().unwrap_or_default();
        // The demo sets its own command.
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
            warnings: state.warnings.clone(),
            ..RunFile::default()
        };
        // Facts replace keys of the same name in the configuration.
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
