//! Conversion of a tokenizer to the metadata of a GGUF file.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::words::Words;
use super::{Kind, key, pieces};
use crate::data::chat::templates;
use crate::data::tokenizer::{Parts, Tokenizer};
use crate::error::{Error, Result};
use crate::gguf;
use crate::gguf::writer::Metadata;

/// Special tokens: their names in transformers, and the metadata entries of their ids.
const SPECIAL: [(&str, &str); 5] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// Adds the tokenizer and the chat templates of the model in `dir`, which has `vocab` tokens. Returns the tokenizer and
/// warnings for the user.
///
/// # Errors
/// [`Error::File`] for a tokenizer that llama.cpp does not support.
pub(in crate::unstable::gguf) fn write(
    metadata: &mut Metadata,
    dir: &Path,
    vocab: usize,
) -> Result<(Tokenizer, Vec<String>)> {
    let (tokenizer, parts) = Tokenizer::load_parts(dir)?;
    let path = gguf::json(dir, "tokenizer.json")?.0;
    let refused = |why: String| Error::file(&path, why);
    let model = &parts.file["model"];
    if model["type"].as_str().unwrap_or("BPE") != "BPE" {
        return Err(refused(format!(
            "llama.cpp does not support this tokenizer ({}; it supports byte-level BPE and SentencePiece's BPE)",
            model["type"]
        )));
    }
    let pieces = model["byte_fallback"] == true;
    let tokens = Tokens::new(&parts, vocab, pieces);
    let mut warnings = Vec::new();
    if pieces {
        if !tokens.have_all_bytes() {
            warnings.push(
                "the tokenizer has no tokens for single bytes: llama.cpp crashes on a text with a character that is not a token"
                    .to_owned(),
            );
        }
        let space_first = space_first(&parts.file).map_err(refused)?;
        if parts.file["pre_tokenizer"]["prepend_scheme"] == "first" {
            warnings.push(
                "the tokenizer adds a space only before the first word of a text, and none before a space: llama.cpp also adds \
                 one after every special token"
                    .to_owned(),
            );
        }
        metadata.text(key::MODEL, "llama");
        metadata.text(key::WORDS, "default");
        metadata.flag(key::SPACE_FIRST, space_first);
        let scores = scores(model);
        let score = |token: &String| scores.get(token).copied().unwrap_or(-1e6);
        metadata.f32s(key::SCORES, tokens.texts.iter().map(score));
    } else {
        let words = Words::of(&parts.file)
            .ok_or_else(|| refused("llama.cpp has no equivalent of its pre_tokenizer".into()))?;
        metadata.text(key::MODEL, "gpt2");
        metadata.text(key::WORDS, words.names[0]);
        // A model may have fewer tokens than its tokenizer; merges of missing tokens are dropped.
        let known: HashSet<&str> = tokens.texts.iter().map(String::as_str).collect();
        let whole = |[left, right]: &[&str; 2]| {
            [*left, *right, &format!("{left}{right}")].iter().all(|token| known.contains(token))
        };
        let merges: Vec<String> = merges(model).filter(whole).map(|pair| pair.join(" ")).collect();
        metadata.texts(key::MERGES, &merges);
    }
    metadata.texts(key::TOKENS, &tokens.texts);
    metadata.i32s(key::KINDS, tokens.kinds.iter().map(|kind| *kind as i32));
    for (name, entry) in SPECIAL {
        let id = match name {
            "bos_token" => tokenizer.bos(),
            "eos_token" => tokenizer.eos(),
            _ => parts.named.get(name).and_then(Value::as_str).and_then(|token| tokenizer.token_to_id(token)),
        };
        if let Some(id) = id.filter(|id| (*id as usize) < vocab) {
            metadata.u32(entry, id);
        }
    }
    let (begins, ends) = ends(&tokenizer).map_err(refused)?;
    metadata.flag(key::ADDS_BOS, begins);
    metadata.flag(key::ADDS_EOS, ends);
    write_templates(metadata, dir)?;
    Ok((tokenizer, warnings))
}

/// The texts and kinds of tokens, one for each of the model's ids.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<Kind>,
}

impl Tokens {
    fn new(parts: &Parts, vocab: usize, pieces: bool) -> Tokens {
        let unused = |id: usize| format!("[PAD{id}]");
        let mut tokens = Tokens { texts: (0..vocab).map(unused).collect(), kinds: vec![Kind::Unused; vocab] };
        let unknown = parts.file["model"]["unk_token"].as_str();
        for (text, id) in parts.file["model"]["vocab"].as_object().into_iter().flatten() {
            let kind = match pieces {
                true if is_byte(text) => Kind::Byte,
                true if unknown == Some(text) => Kind::Unknown,
                _ => Kind::Normal,
            };
            tokens.set(id.as_u64().unwrap_or(u64::MAX), text.clone(), kind);
        }
        for (id, text, special) in &parts.added {
            let (text, kind) = match special {
                true if pieces && unknown == Some(text.as_str()) => (text.clone(), Kind::Unknown),
                true => (text.clone(), Kind::Control),
                // llama.cpp matches these in a text before its spaces become ▁.
                false if pieces => (text.replace('▁', " "), Kind::UserDefined),
                false => (text.clone(), Kind::UserDefined),
            };
            tokens.set(u64::from(*id), text, kind);
        }
        tokens
    }

    /// Whether every byte has a token, so that any text can be encoded.
    fn have_all_bytes(&self) -> bool {
        let known: HashSet<&str> = self.texts.iter().map(String::as_str).collect();
        (0..=u8::MAX).all(|byte| {
            let character = char::from(byte).to_string();
            known.contains(format!("<0x{byte:02X}>").as_str())
                || byte.is_ascii() && known.contains(character.as_str())
        })
    }

    /// Sets a token; ids beyond the model's vocabulary are ignored.
    fn set(&mut self, id: u64, text: String, kind: Kind) {
        if let Some(at) = usize::try_from(id).ok().filter(|id| *id < self.texts.len()) {
            self.texts[at] = text;
            self.kinds[at] = kind;
        }
    }
}

/// Whether a token represents a byte, such as `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// The merges of a `tokenizer.json`.
fn merges(model: &Value) -> impl Iterator<Item = [&str; 2]> {
    model["merges"].as_array().into_iter().flatten().filter_map(|merge| match merge {
        Value::String(pair) => pair.split_once(' ').map(|(left, right)| [left, right]),
        pair => Some([pair[0].as_str()?, pair[1].as_str()?]),
    })
}

/// A score for each token that merges make; the first merge has the highest.
fn scores(model: &Value) -> HashMap<String, f32> {
    pieces::scores(merges(model))
}

/// Whether a space is added at the beginning of a text. The error says why llama.cpp cannot do what this tokenizer
/// does.
fn space_first(file: &Value) -> Result<bool, String> {
    let normalizers = match file["normalizer"]["normalizers"].as_array() {
        Some(steps) => steps.iter().collect(),
        None if file["normalizer"].is_null() => Vec::new(),
        None => vec![&file["normalizer"]],
    };
    let mut first = false;
    for step in normalizers {
        match step["type"].as_str() {
            Some("Prepend") => first = true,
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == "▁" => {}
            _ => return Err(format!("llama.cpp has no normalizer {step}")),
        }
    }
    match file["pre_tokenizer"]["type"].as_str() {
        None => {}
        // At this point spaces are ▁, so it finds nothing to split at.
        Some("Split") if file["pre_tokenizer"]["pattern"]["String"] == " " => {}
        Some("Metaspace") if file["pre_tokenizer"]["split"] == false => {
            first = file["pre_tokenizer"]["prepend_scheme"] != "never";
        }
        Some(other) => return Err(format!("llama.cpp has no pre_tokenizer {other} with byte fallback")),
    }
    Ok(first)
}

/// Whether beginning- and end-of-sequence tokens are added to texts.
fn ends(tokenizer: &Tokenizer) -> Result<(bool, bool), String> {
    let text = "a";
    let (Ok(whole), Ok(plain)) = (tokenizer.encode(text), tokenizer.encode_plain(text)) else {
        return Ok((false, false));
    };
    let of = |begins: bool, ends: bool| {
        let first = tokenizer.bos().filter(|_| begins).into_iter();
        first.chain(plain.iter().copied()).chain(tokenizer.eos().filter(|_| ends)).collect::<Vec<u32>>()
    };
    let all = [(false, false), (true, false), (false, true), (true, true)];
    all.into_iter().find(|(begins, ends)| of(*begins, *ends) == whole).ok_or_else(|| {
        "its post_processor adds other tokens than the beginning- and end-of-sequence ones, which llama.cpp does not support".into()
    })
}

fn write_templates(metadata: &mut Metadata, dir: &Path) -> Result<()> {
    let config = gguf::json(dir, "tokenizer_config.json")?.1.unwrap_or_default();
    let templates = templates(dir, &config)?;
    let mut others = Vec::new();
    for (name, (_, source)) in &templates {
        match name.as_str() {
            "default" => metadata.text(key::TEMPLATE, source),
            name => {
                metadata.text(&format!("{}.{name}", key::TEMPLATE), source);
                others.push(name);
            }
        }
    }
    if !others.is_empty() {
        metadata.texts(key::TEMPLATES, &others);
    }
    Ok(())
}
