//! `tokenizer.json`: read and checked for what the `tokenizers` library takes without a look.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::{files, gguf};

/// Above any real file; a vocabulary of ten million tokens is larger.
const MAX_BYTES: u64 = 128 << 20;
/// Normalizers, pre-tokenizers, post-processors or decoders in a row.
const MAX_STEPS: usize = 512;
/// What a single match may be replaced by, or a text begun with.
const MAX_REPLACEMENT: usize = 64;
/// Pre-tokenizers that may each double a text.
const MAX_GROWING: usize = 4;
/// The highest token id: the library counts on from it.
const MAX_ID: u32 = i32::MAX as u32;

/// The content of `tokenizer.json` in `dir`, or what a GGUF file says of the same, and where it stands; without what is not for encoding a text as a user wrote it: truncation,
/// padding, and the dropout of merges.
pub(super) fn read(dir: &Path) -> Result<(PathBuf, Value)> {
    if let Some(file) = gguf::file_of(dir)? {
        let (_, content) = gguf::json(&file, "tokenizer.json")?;
        let content = checked(&file, content.unwrap_or_default())?;
        return Ok((file, content));
    }
    let path = dir.join("tokenizer.json");
    if !files::exists(&path) {
        let slow = ["tokenizer.model", "vocab.json", "spiece.model", "tekken.json"];
        let found = slow.iter().find(|name| files::exists(&dir.join(name)));
        let found = found.map_or_else(String::new, |name| format!(", only {name}"));
        let why = format!(
            "has no tokenizer.json{found}: write one there with transformers \
             (AutoTokenizer.from_pretrained(folder).save_pretrained(folder))"
        );
        return Err(Error::file(dir, why));
    }
    let bytes = files::length(&path)?;
    if bytes > MAX_BYTES {
        let why = format!("has {} MiB, at most {} are read", bytes >> 20, MAX_BYTES >> 20);
        return Err(Error::file(path, why));
    }
    let file = serde_json::from_slice(&files::read(&path)?).map_err(|e| refused(&path, e.to_string()))?;
    let file = checked(&path, file)?;
    Ok((path, file))
}

fn refused(path: &Path, why: String) -> Error {
    Error::file(path, format!("is not a tokenizer of the kind that transformers saves ({why})"))
}

/// What [`read`] returns of this content.
fn checked(path: &Path, mut file: Value) -> Result<Value> {
    let refused = |why| refused(path, why);
    let Value::Object(parts) = &mut file else { return Err(refused("it is not an object".into())) };
    // Some files keep the settings of their last training run.
    for setting in ["truncation", "padding"] {
        parts.insert(setting.into(), Value::Null);
    }
    if let Some(Value::Object(model)) = parts.get_mut("model") {
        model.insert("dropout".into(), Value::Null);
    }
    check(&file).map_err(refused)?;
    Ok(file)
}

fn check(file: &Value) -> Result<(), String> {
    for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        let steps = steps(&file[part]);
        if steps.len() > MAX_STEPS {
            return Err(format!("its {part} has {} steps, at most {MAX_STEPS} are run", steps.len()));
        }
        let growing = steps.iter().filter(|step| ["ByteLevel", "Metaspace"].contains(&kind(step)));
        if part == "pre_tokenizer" && growing.count() > MAX_GROWING {
            return Err(format!("more than {MAX_GROWING} of its pre-tokenizers make a text longer"));
        }
        for step in steps {
            check_replacement(step).map_err(|why| format!("its {part}: {why}"))?;
            check_template(step)?;
            if kind(step) == "FixedLength" && step["length"] == 0 {
                return Err(format!("its {part} cuts a text into pieces of no length"));
            }
        }
    }
    check_model(&file["model"])?;
    let added = file["added_tokens"].as_array().into_iter().flatten();
    added.clone().try_for_each(|token| check_id(token["content"].as_str().unwrap_or_default(), &token["id"]))
}

/// The single steps of a part that may be a sequence of them.
fn steps(part: &Value) -> Vec<&Value> {
    let lists = ["normalizers", "pretokenizers", "processors", "decoders"];
    match lists.iter().find_map(|list| part[list].as_array()) {
        Some(list) => list.iter().flat_map(steps).collect(),
        None if part.is_object() => vec![part],
        None => Vec::new(),
    }
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

fn check_replacement(step: &Value) -> Result<(), String> {
    let text = match kind(step) {
        "Replace" => &step["content"],
        "Prepend" => &step["prepend"],
        _ => return Ok(()),
    };
    match text.as_str().map(str::len) {
        Some(bytes) if bytes > MAX_REPLACEMENT => {
            Err(format!("a {} writes {bytes} bytes at a time, at most {MAX_REPLACEMENT}", kind(step)))
        }
        _ => Ok(()),
    }
}

fn check_template(step: &Value) -> Result<(), String> {
    for piece in step["single"].as_array().into_iter().flatten() {
        let token = piece["SpecialToken"]["id"].as_str();
        if let Some(token) = token.filter(|token| !step["special_tokens"][token].is_object()) {
            return Err(format!("its post_processor writes {token:?}, which its special_tokens lack"));
        }
        if piece["Sequence"]["id"].as_str() == Some("B") {
            return Err("its post_processor wants a second text for a single one".into());
        }
    }
    Ok(())
}

fn check_model(model: &Value) -> Result<(), String> {
    let Value::Object(parts) = model else { return Err("it has no model".into()) };
    if let Some(Value::Object(vocab)) = parts.get("vocab") {
        vocab.iter().try_for_each(|(token, id)| check_id(token, id))?;
    }
    // The library cuts as many bytes off, whatever they are.
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    let right = |merge: &Value| match merge {
        Value::String(pair) => pair.split_once(' ').map(|(_, right)| right.to_owned()),
        pair => pair[1].as_str().map(str::to_owned),
    };
    let merges = model["merges"].as_array().filter(|_| !prefix.is_empty()).into_iter().flatten();
    match merges.filter_map(right).find(|right| !right.starts_with(prefix)) {
        Some(right) => Err(format!(
            "a merge continues a word with {right:?}, without the model's continuing_subword_prefix {prefix:?}"
        )),
        None => Ok(()),
    }
}

fn check_id(token: &str, id: &Value) -> Result<(), String> {
    // What is wrong with one that is no whole number the library says.
    match id.is_u64() && token_id(id).is_none() {
        true => Err(format!("token {token:?} has id {id}, ids end at {MAX_ID}")),
        false => Ok(()),
    }
}

/// A token id that the library can take.
pub(super) fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id <= MAX_ID)
}

/// How many tokens the post-processor writes behind a text.
pub(super) fn tokens_behind(file: &Value) -> usize {
    let template = |step: &Value| {
        let pieces = step["single"].as_array().map_or(&[][..], Vec::as_slice);
        let after = pieces.iter().rev().take_while(|piece| !piece["Sequence"].is_object());
        let ids = |piece: &Value| {
            let token = piece["SpecialToken"]["id"].as_str().unwrap_or_default();
            step["special_tokens"][token]["ids"].as_array().map_or(0, Vec::len)
        };
        after.map(ids).sum::<usize>()
    };
    let behind = |step: &Value| match kind(step) {
        "BertProcessing" | "RobertaProcessing" => 1,
        _ => template(step),
    };
    steps(&file["post_processor"]).into_iter().map(behind).sum()
}
