//! The commands: each a thin layer over the library's own calls.

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
mod summary;
mod training;

use std::path::Path;

use serde_json::Value;

use super::console::say;
use crate::Wait;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::Gpu;
use crate::judge::config::JudgeConfig;
use crate::judge::queue::JudgeQueue;
use crate::model::{FrozenFormat, Model};

/// Shows what a user should know about the files of a model and its adapter.
fn warn_of(model: &Model) {
    model.warnings().for_each(|text| say(format_args!("oaif: warning: {text}")));
}

/// The judge that the flags describe, see [`JudgeConfig::open`].
fn open_judge(
    gpu: &Gpu,
    config: JudgeConfig,
    base_dtype: Option<FrozenFormat>,
    training: bool,
) -> Result<Box<dyn JudgeQueue>> {
    config.open(gpu, base_dtype, training, &mut |text| say(format_args!("oaif: warning: {text}"))).wait()
}

/// Writes results as JSON lines: to a file, whole or not at all, or to standard output. A link stays one, and what is no
/// file, such as a pipe, is written to rather than replaced.
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
