//! The commands: thin layers over the library.

pub mod align;
pub mod bench;
pub mod chat;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod dpo;
pub mod eval;
pub mod export;
pub mod generate;
pub mod judge;
pub mod judgements;
pub mod models;
mod page;
pub mod report;
pub mod reward;
pub mod score;
pub mod sft;
pub mod shell;
mod summary;
mod training;

use std::path::Path;

use serde_json::Value;

use super::console::warn;
use crate::Wait;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::Gpu;
use crate::judge::config::JudgeConfig;
use crate::judge::queue::JudgeQueue;
use crate::model::{FrozenFormat, Model};

/// Prints the warnings about the files of a model and its adapter.
fn warn_of(model: &Model) {
    model.warnings().for_each(warn);
}

/// Opens the judge, see [`JudgeConfig::open`].
fn open_judge(
    gpu: &Gpu,
    config: JudgeConfig,
    base_dtype: Option<FrozenFormat>,
    training: bool,
) -> Result<Box<dyn JudgeQueue>> {
    config.open(gpu, base_dtype, training, &mut |text| warn(text)).wait()
}

/// Writes results as JSON lines to standard output or, atomically, to a file. Links are followed, and special files such as
/// pipes are written to instead of replaced.
fn write_lines(output: Option<&Path>, rows: impl IntoIterator<Item = Value>) -> Result<()> {
    let Some(path) = output else { return rows.into_iter().try_for_each(super::print) };
    let text: String = rows.into_iter().map(|row| format!("{row}\n")).collect();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => std::fs::write(path, text).map_err(Error::io("write", path)),
        Ok(_) => {
            let there = std::fs::canonicalize(path).map_err(Error::io("write", path))?;
            files::write_atomic(&there, text.as_bytes())
        }
        Err(_) => files::write_atomic(path, text.as_bytes()),
    }
}
