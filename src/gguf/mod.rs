//! GGUF, the files of llama.cpp and Ollama: a model in one file, with its tokenizer and chat template.
//!
//! The rest of this crate sees such a file as the folder that transformers would have for the same model: its metadata
//! become the content of `config.json`, `tokenizer.json` and so on, and its tensors those of safetensors files
//! ([`GgufTensors`]).

mod blocks;
mod config;
mod container;
mod describe;
mod export;
mod layout;
mod names;
mod tensor_type;
mod tensors;
#[cfg(test)]
mod tests;
mod tokenizer;
mod writer;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use export::GgufFormat;
pub use tensors::GgufTensors;
pub(crate) use tensors::frozen_format;

use crate::error::{Error, Result};
use crate::files;
use crate::model::safetensors_io::TensorFiles;
use container::Container;
use tokenizer::{GgufTokenizer, key};

/// The file name extension.
const END: &str = "gguf";

/// The files of a model folder that a GGUF file replaces.
pub(crate) const REPLACED_FILES: [&str; 4] =
    ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"];

/// Whether `path` has the extension of a GGUF file.
pub(crate) fn has_gguf_extension(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case(END))
}

/// Returns the GGUF file of the model at `path`: `path` itself, or the only one in a folder without safetensors.
/// Returns `None` for another model.
///
/// # Errors
/// [`Error::File`] for a folder with several GGUF files and no other weights.
pub fn file_of(path: &Path) -> Result<Option<PathBuf>> {
    if files::is_file(path) {
        return Ok(Some(path.to_owned()));
    }
    if !files::is_dir(path) || TensorFiles::are_in(path) {
        return Ok(None);
    }
    let mut found: Vec<PathBuf> =
        files::list(path)?.into_iter().filter(|file| has_gguf_extension(file)).collect();
    found.sort();
    match &found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => {
            let names: Vec<String> = several.iter().take(5).map(|file| file_name(file)).collect();
            let more = if several.len() > names.len() { ", …" } else { "" };
            let why = format!(
                "has {} GGUF files and no safetensors: give one of them ({}{more})",
                several.len(),
                names.join(", ")
            );
            Err(Error::file(path, why))
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the JSON file `name` of the model at `model`, and its path for messages. It is a file in the folder, or
/// derived from the metadata of a GGUF file. `None` if there is none.
pub(crate) fn json(model: &Path, name: &str) -> Result<(PathBuf, Option<Value>)> {
    let Some(file) = file_of(model)? else {
        let path = model.join(name);
        let value = files::read_json_if_present(&path)?;
        return Ok((path, value));
    };
    let known = REPLACED_FILES.contains(&name);
    let value = known.then(|| derived(&Container::open(&file)?, name)).transpose()?;
    Ok((file, value))
}

fn derived(container: &Container, name: &str) -> Result<Value> {
    if name == "config.json" {
        return config::config_json(container);
    }
    if name == "tokenizer.json"
        && let Some(whole) = container.text(key::WHOLE)?
    {
        return serde_json::from_str(&whole)
            .map_err(|e| container.refused(format!("{} is not valid JSON ({e})", key::WHOLE)));
    }
    let tokenizer = GgufTokenizer::open(container)?;
    match name {
        "tokenizer.json" => tokenizer.tokenizer_json(),
        "tokenizer_config.json" => tokenizer.tokenizer_config_json(),
        _ => tokenizer.generation_config_json(),
    }
}

/// Writes to `dir` the tokenizer files that the GGUF file at `path` replaces, and with `all` also the generation
/// configuration.
pub(crate) fn write_companions(path: &Path, dir: &Path, all: bool) -> Result<()> {
    let names: &[&str] = if all { &REPLACED_FILES[1..] } else { &REPLACED_FILES[1..3] };
    let container = Container::open(path)?;
    for name in names {
        let mut text = serde_json::to_string_pretty(&derived(&container, name)?).expect("a JSON value");
        text.push('\n');
        files::write_atomic(&dir.join(name), text.as_bytes())?;
    }
    Ok(())
}
