//! Digests of a model's files, which show whether a folder still holds the same model.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::adapter_storage::{ADAPTER_CONFIG, ADAPTER_FILE};
use super::safetensors_io::TensorFiles;
use crate::data::chat::templates;
use crate::digest::{Digest, Digester};
use crate::error::Result;
use crate::{files, gguf};

/// The digest of the weights in `dir` and their configuration. Without weights it covers the configuration alone.
pub(crate) fn model(dir: &Path) -> Result<Digest> {
    let mut digester = Digester::default();
    if let Some(file) = gguf::file_of(dir)? {
        digester.file(&file)?;
        return Ok(digester.finish());
    }
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

/// The digest of a LoRA adapter, independent of the location of its base model.
pub(crate) fn adapter(dir: &Path) -> Result<Digest> {
    let mut digester = Digester::default();
    let mut config = files::read_json(&dir.join(ADAPTER_CONFIG))?;
    config["base_model_name_or_path"] = Value::Null;
    digester.bytes(config.to_string().as_bytes());
    digester.file(&dir.join(ADAPTER_FILE))?;
    Ok(digester.finish())
}

/// The digest of everything that determines the token ids of a text, and of the end-of-sequence ids.
pub(crate) fn tokenizer(dir: &Path, eos: &[u32]) -> Result<Digest> {
    let mut digester = Digester::default();
    if let Some(file) = gguf::file_of(dir)? {
        let (_, content) = gguf::json(&file, "tokenizer.json")?;
        digester.bytes(content.unwrap_or_default().to_string().as_bytes());
    }
    for name in ["tokenizer.json", "special_tokens_map.json", "added_tokens.json"] {
        let path = dir.join(name);
        if files::exists(&path) {
            digester.file(&path)?;
        }
    }
    let mut config = gguf::json(dir, "tokenizer_config.json")?.1.unwrap_or_default();
    if let Some(keys) = config.as_object_mut() {
        keys.remove("chat_template");
    }
    digester.bytes(config.to_string().as_bytes());
    digester.ids(eos);
    Ok(digester.finish())
}

/// The digest of the chat templates in all places where they may be stored, if there are any.
pub(crate) fn chat_template(dir: &Path) -> Result<Option<Digest>> {
    let config = gguf::json(dir, "tokenizer_config.json")?.1.unwrap_or_default();
    let templates = templates(dir, &config)?;
    let mut digester = Digester::default();
    for (name, (_, source)) in &templates {
        digester.bytes(name.as_bytes());
        digester.bytes(source.as_bytes());
    }
    Ok((!templates.is_empty()).then(|| digester.finish()))
}

/// The digest of a judge model: weights, tokenizer and chat template.
pub(crate) fn judge_model(dir: &Path, eos: &[u32]) -> Result<Digest> {
    let mut digester = Digester::default();
    for part in [Some(model(dir)?), Some(tokenizer(dir, eos)?), chat_template(dir)?].into_iter().flatten() {
        digester.bytes(part.to_string().as_bytes());
    }
    Ok(digester.finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_of_the_chat_template_is_detected_in_every_place_that_holds_one() {
        let with = |file: &str, text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(file);
            files::create_dir_all(path.parent().unwrap()).unwrap();
            files::write_atomic(&path, text.as_bytes()).unwrap();
            chat_template(dir.path()).unwrap()
        };
        let json = |template: &str| json!({"chat_template": template}).to_string();
        assert_eq!(with("tokenizer_config.json", "{}"), None);
        assert!(with("chat_template.jinja", "a").is_some());
        for file in ["tokenizer_config.json", "chat_template.json"] {
            assert_eq!(with(file, &json("a")), with("chat_template.jinja", "a"));
            assert_ne!(with(file, &json("b")), with("chat_template.jinja", "a"));
        }
        let additional = |text| with("additional_chat_templates/tool_use.jinja", text);
        assert!(additional("a").is_some() && additional("a") != additional("b"));
        assert_ne!(additional("a"), with("chat_template.jinja", "a"));
    }
}
