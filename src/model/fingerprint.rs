//! Digests of the files that a model is made of: whether a folder still holds the same one.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::adapter_storage::{ADAPTER_CONFIG, ADAPTER_FILE};
use super::safetensors_io::TensorFiles;
use crate::digest::{Digest, Digester};
use crate::error::Result;
use crate::files;

/// The weights in `dir` with their configuration. A folder without weights is told by its configuration alone.
pub(crate) fn model(dir: &Path) -> Result<Digest> {
    let mut digester = Digester::default();
    let config = files::read_json_if_present(&dir.join("config.json"))?.unwrap_or_default();
    digester.bytes(config.to_string().as_bytes());
    if TensorFiles::are_in(dir) {
        let tensors = TensorFiles::open(dir)?;
        let paths: BTreeSet<&Path> = tensors
            .names()
            .filter_map(|name| tensors.info(name))
            .map(|tensor| tensor.path.as_path())
            .collect();
        for path in paths {
            digester.file(path)?;
        }
    }
    Ok(digester.finish())
}

/// A LoRA adapter, wherever its base lies.
pub(crate) fn adapter(dir: &Path) -> Result<Digest> {
    let mut digester = Digester::default();
    let mut config = files::read_json(&dir.join(ADAPTER_CONFIG))?;
    config["base_model_name_or_path"] = Value::Null;
    digester.bytes(config.to_string().as_bytes());
    digester.file(&dir.join(ADAPTER_FILE))?;
    Ok(digester.finish())
}

/// What makes token ids of a text, and the ids that end one.
pub(crate) fn tokenizer(dir: &Path, eos: &[u32]) -> Result<Digest> {
    let mut digester = Digester::default();
    for name in ["tokenizer.json", "special_tokens_map.json", "added_tokens.json"] {
        let path = dir.join(name);
        if path.exists() {
            digester.file(&path)?;
        }
    }
    let mut config = files::read_json_if_present(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    if let Some(keys) = config.as_object_mut() {
        keys.remove("chat_template");
    }
    digester.bytes(config.to_string().as_bytes());
    digester.ids(eos);
    Ok(digester.finish())
}

/// The chat template, if there is one.
pub(crate) fn chat_template(dir: &Path) -> Result<Option<Digest>> {
    let mut digester = Digester::default();
    let jinja = dir.join("chat_template.jinja");
    if jinja.exists() {
        digester.file(&jinja)?;
        return Ok(Some(digester.finish()));
    }
    let config = files::read_json_if_present(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    Ok(config.get("chat_template").map(|template| {
        digester.bytes(template.to_string().as_bytes());
        digester.finish()
    }))
}

/// A judging model: weights, tokenizer and template.
pub(crate) fn judge_model(dir: &Path) -> Result<Digest> {
    let mut digester = Digester::default();
    for part in [Some(model(dir)?), Some(tokenizer(dir, &[])?), chat_template(dir)?].into_iter().flatten() {
        digester.bytes(part.to_string().as_bytes());
    }
    Ok(digester.finish())
}
