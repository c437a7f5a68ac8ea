//! Reads `tokenizer.json`, and checks what the `tokenizers` library does not.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::{files, gguf};

/// The largest size in bytes, above that of any real file, even with a vocabulary of millions.
const MAX_BYTES: u64 = 128 << 20;
/// The largest number of normalizers, pre-tokenizers, post-processors or decoders in a sequence.
const MAX_STEPS: usize = 512;
/// The largest replacement of a match, and the largest prepended text, in bytes.
const MAX_REPLACEMENT: usize = 64;
/// The largest number of pre-tokenizers that can each double the length of a text.
const MAX_GROWING: usize = 4;
/// The highest token id; the library adds to it.
const MAX_ID: u32 = i32::MAX as u32;

/// Returns the content of `tokenizer.json` in `dir`, or the equivalent of a GGUF file, and its path. Truncation,
/// padding and BPE dropout, which must not apply here, are removed.
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
            "has no tokenizer.json{found}: create one with transformers \
             (AutoTokenizer.from_pretrained(folder).save_pretrained(folder))"
        );
        return Err(Error::file(dir, why));
    }
    let bytes = files::length(&path)?;
    if bytes > MAX_BYTES {
        let why = format!("has {} MiB, more than the limit of {}", bytes >> 20, MAX_BYTES >> 20);
        return Err(Error::file(path, why));
    }
    let file = serde_json::from_slice(&files::read(&path)?).map_err(|e| refused(&path, e.to_string()))?;
    let file = checked(&path, file)?;
    Ok((path, file))
}

fn refused(path: &Path, why: String) -> Error {
    Error::file(path, format!("is not a tokenizer in the format of transformers ({why})"))
}

/// Checks this content and removes settings, as [`read`] returns it.
fn checked(path: &Path, mut file: Value) -> Result<Value> {
    let refused = |why| refused(path, why);
    let Value::Object(parts) = &mut file else { return Err(refused("it is not an object".into())) };
    // Some files contain the settings of their last training run.
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
            return Err(format!("its {part} has {} steps, more than the limit of {MAX_STEPS}", steps.len()));
        }
        let growing = steps.iter().filter(|step| ["ByteLevel", "Metaspace"].contains(&kind(step)));
        if part == "pre_tokenizer" && growing.count() > MAX_GROWING {
            return Err(format!("more than {MAX_GROWING} of its pre-tokenizers make a text longer"));
        }
        for step in steps {
            check_replacement(step).map_err(|why| format!("its {part}: {why}"))?;
            check_template(step)?;
            if kind(step) == "FixedLength" && step["length"] == 0 {
                return Err(format!("its {part} splits a text into pieces of length 0"));
            }
        }
    }
    check_model(&file["model"])?;
    let added = file["added_tokens"].as_array().into_iter().flatten();
    added.clone().try_for_each(|token| check_id(token["content"].as_str().unwrap_or_default(), &token["id"]))
}

/// The steps of a part, which may be nested sequences.
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
        Some(bytes) if bytes > MAX_REPLACEMENT => Err(format!(
            "a {} inserts {bytes} bytes at a time, more than the limit of {MAX_REPLACEMENT}",
            kind(step)
        )),
        _ => Ok(()),
    }
}

fn check_template(step: &Value) -> Result<(), String> {
    for piece in step["single"].as_array().into_iter().flatten() {
        let token = piece["SpecialToken"]["id"].as_str();
        if let Some(token) = token.filter(|token| !step["special_tokens"][token].is_object()) {
            return Err(format!(
                "its post_processor adds {token:?}, which is missing from its special_tokens"
            ));
        }
        if piece["Sequence"]["id"].as_str() == Some("B") {
            return Err("its post_processor uses a second text in the template for a single one".into());
        }
    }
    Ok(())
}

fn check_model(model: &Value) -> Result<(), String> {
    let Value::Object(parts) = model else { return Err("it has no model".into()) };
    if let Some(Value::Object(vocab)) = parts.get("vocab") {
        vocab.iter().try_for_each(|(token, id)| check_id(token, id))?;
    }
    // The library removes this many bytes without comparing them, and panics if there are fewer.
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    let right = |merge: &Value| match merge {
        Value::String(pair) => pair.split_once(' ').map(|(_, right)| right.to_owned()),
        pair => pair[1].as_str().map(str::to_owned),
    };
    let merges = model["merges"].as_array().filter(|_| !prefix.is_empty()).into_iter().flatten();
    match merges.filter_map(right).find(|right| !right.starts_with(prefix)) {
        Some(right) => Err(format!(
            "a merge has {right:?} on the right, which lacks the model's continuing_subword_prefix {prefix:?}"
        )),
        None => Ok(()),
    }
}

fn check_id(token: &str, id: &Value) -> Result<(), String> {
    // The library reports ids that are not whole numbers.
    match id.is_u64() && token_id(id).is_none() {
        true => Err(format!("token {token:?} has id {id}, above the limit of {MAX_ID}")),
        false => Ok(()),
    }
}

/// Reads a token id that the library can represent.
pub(super) fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id <= MAX_ID)
}

/// The number of tokens that the post-processor appends to a text.
pub(super) fn appended_tokens(file: &Value) -> usize {
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
