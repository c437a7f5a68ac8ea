//! Converts the tokenizer of a GGUF file to the files of transformers: `tokenizer.json`, `tokenizer_config.json` and
//! `generation_config.json`, which are read and checked like any others.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::pieces;
use super::words::{DEFAULT, Words};
use super::{Kind, key};
use crate::error::Result;
use crate::gguf::container::Container;

/// Tokens that end a response in any model that has them, as in llama.cpp.
const ENDS: [&str; 9] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<EOT>",
];

/// Special tokens: their names in transformers, and the metadata entries of their ids.
const SPECIAL: [(&str, &str); 7] = [
    ("bos_token", "bos_token_id"),
    ("eos_token", "eos_token_id"),
    ("unk_token", "unknown_token_id"),
    ("sep_token", "seperator_token_id"),
    ("pad_token", "padding_token_id"),
    ("cls_token", "cls_token_id"),
    ("mask_token", "mask_token_id"),
];

/// A tokenizer that was read from metadata.
pub(crate) struct GgufTokenizer<'a> {
    container: &'a Container,
    tokens: Vec<String>,
    kinds: Vec<Kind>,
    model: Model,
}

enum Model {
    /// Byte-level BPE, within words.
    Bytes(&'static Words),
    /// Pieces with scores; a space is ▁.
    Pieces { space_first: bool },
}

impl GgufTokenizer<'_> {
    /// Reads the tokens and their kinds.
    ///
    /// # Errors
    /// [`crate::Error::File`] for a missing or unsupported tokenizer, and for lists of different lengths.
    pub fn open(container: &Container) -> Result<GgufTokenizer<'_>> {
        let Some(model) = container.text(key::MODEL)? else {
            return Err(container.refused(
                "has no tokenizer: use a file with one, or the model folder in the Hugging Face layout",
            ));
        };
        let model = match model.as_str() {
            "gpt2" => Model::Bytes(match container.text(key::WORDS)? {
                None => &DEFAULT,
                Some(name) => Words::named(&name).ok_or_else(|| {
                    container.refused(format!(
                        "its tokenizer has the pre-tokenizer {name:?}, which is not supported: use the model folder \
                         in the Hugging Face layout"
                    ))
                })?,
            }),
            "llama" => {
                let space_first = container.scalar(key::SPACE_FIRST)?.and_then(Value::as_bool);
                Model::Pieces { space_first: space_first.unwrap_or(true) }
            }
            other => {
                return Err(container.refused(format!(
                    "its tokenizer has the type {other:?}, supported are \"gpt2\" and \"llama\": use the model folder \
                     in the Hugging Face layout"
                )));
            }
        };
        let tokens = container.texts(key::TOKENS)?.unwrap_or_default();
        let kinds = match container.list(key::KINDS)? {
            None => vec![Kind::Normal; tokens.len()],
            Some(kinds) => kinds.iter().map(|kind| Kind::of(kind.as_u64().unwrap_or(0))).collect(),
        };
        if tokens.is_empty() || kinds.len() != tokens.len() {
            return Err(container.refused(format!(
                "is damaged: its tokenizer has {} tokens, but the types of {}; download it again",
                tokens.len(),
                kinds.len()
            )));
        }
        let mut seen = HashSet::new();
        if let Some(token) = tokens.iter().find(|token| !token.is_empty() && !seen.insert(token.as_str())) {
            return Err(container
                .refused(format!("is damaged: its tokenizer has two tokens {token:?}; download it again")));
        }
        Ok(GgufTokenizer { container, tokens, kinds, model })
    }

    /// The ids, their tokens as transformers writes them, and their kinds, without unused ids.
    fn vocabulary(&self) -> impl Iterator<Item = (usize, String, Kind)> {
        let pieces = matches!(self.model, Model::Pieces { .. });
        let all = self.tokens.iter().zip(&self.kinds).enumerate();
        all.filter(|(_, (token, kind))| !token.is_empty() && **kind != Kind::Unused).map(
            move |(id, (token, kind))| match (pieces, kind) {
                // llama.cpp matches these in the text with its spaces; transformers' files have ▁ instead.
                (true, Kind::UserDefined) => (id, token.replace(' ', "▁"), *kind),
                _ => (id, token.clone(), *kind),
            },
        )
    }

    /// Returns the content of `tokenizer.json`.
    pub fn tokenizer_json(&self) -> Result<Value> {
        let vocab: Map<String, Value> = self.vocabulary().map(|(id, token, _)| (token, id.into())).collect();
        let added: Vec<Value> =
            self.vocabulary().filter_map(|(id, token, kind)| self.added(id, token, kind)).collect();
        let mut file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "post_processor": self.post_processor()?,
        });
        let mut model = json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        });
        match self.model {
            Model::Bytes(words) => {
                model["ignore_merges"] = words.ignore_merges.into();
                model["merges"] = self.written_merges()?;
                file["normalizer"] = if words.composed { json!({"type": "NFC"}) } else { Value::Null };
                file["pre_tokenizer"] = words.pre_tokenizer();
                file["decoder"] = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
            }
            Model::Pieces { space_first } => {
                model["unk_token"] = self.unknown().map_or(Value::Null, Value::from);
                model["fuse_unk"] = true.into();
                model["byte_fallback"] = true.into();
                model["merges"] = self.merges_by_score()?;
                let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
                let mut decoders = vec![
                    json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                    json!({"type": "ByteFallback"}),
                    json!({"type": "Fuse"}),
                ];
                file["normalizer"] = match space_first {
                    false => spaces,
                    true => {
                        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
                        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]})
                    }
                };
                file["pre_tokenizer"] = Value::Null;
                file["decoder"] = json!({"type": "Sequence", "decoders": decoders});
            }
        }
        model["vocab"] = vocab.into();
        file["model"] = model;
        Ok(file)
    }

    /// Returns the entry of an added token, if the token is one.
    fn added(&self, id: usize, token: String, kind: Kind) -> Option<Value> {
        let special = match kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            _ => return None,
        };
        // As in llama.cpp, since the metadata lack the settings in Phi-3's files about spaces after special tokens.
        let strips =
            special && self.is_phi3() && !["<unk>", "<s>", "<|endoftext|>"].contains(&token.as_str());
        Some(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": strips, "normalized": false,
            "special": special,
        }))
    }

    fn is_phi3(&self) -> bool {
        let name = self.container.text("general.name").ok().flatten().unwrap_or_default().to_lowercase();
        let named = name.contains("phi-3") || name.contains("phi3");
        named && matches!(self.model, Model::Pieces { .. })
    }

    fn unknown(&self) -> Option<&str> {
        match self.id("unknown_token_id").ok().flatten() {
            Some(id) => self.tokens.get(id).map(String::as_str),
            None => {
                self.kinds.iter().position(|kind| *kind == Kind::Unknown).map(|id| self.tokens[id].as_str())
            }
        }
    }

    /// The merges of a byte-level tokenizer.
    fn written_merges(&self) -> Result<Value> {
        let Some(merges) = self.container.texts(key::MERGES)? else {
            return Err(self.container.refused("is damaged: its tokenizer has no merges; download it again"));
        };
        let pair = |merge: &String| {
            // The first character of a part may itself be a space.
            let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            match at {
                Some(at) => Ok(json!([&merge[..at], &merge[at + 1..]])),
                None => {
                    Err(self.container.refused(format!("is damaged: {merge:?} is not a merge of two tokens")))
                }
            }
        };
        merges.iter().map(pair).collect::<Result<Vec<_>>>().map(Value::Array)
    }

    fn merges_by_score(&self) -> Result<Value> {
        let scores = self.container.list(key::SCORES)?.unwrap_or_default();
        if scores.len() != self.tokens.len() {
            return Err(self.container.refused(format!(
                "is damaged: its tokenizer has {} tokens and {} scores; download it again",
                self.tokens.len(),
                scores.len()
            )));
        }
        let score = |id: usize| scores[id].as_f64().unwrap_or(0.0);
        let made: Vec<(usize, String, Kind)> = self
            .vocabulary()
            .filter(|(_, _, kind)| matches!(kind, Kind::Normal | Kind::UserDefined))
            .collect();
        let normal = || made.iter().filter(|(_, _, kind)| *kind == Kind::Normal).map(|(id, ..)| *id);
        // Some files have the same score for all tokens; then the ids give the order, as in SentencePiece.
        let alike = normal().all(|id| score(id) == score(normal().next().unwrap_or(0)));
        let scored = |(id, token, kind): &(usize, String, Kind)| {
            let score = match kind {
                Kind::UserDefined => f64::INFINITY,
                _ if alike => -(*id as f64),
                _ => score(*id),
            };
            (token.clone(), score)
        };
        let scored: Vec<(String, f64)> = made.iter().map(scored).collect();
        let borrowed: Vec<(&str, f64)> =
            scored.iter().map(|(token, score)| (token.as_str(), *score)).collect();
        Ok(json!(pieces::merges(&borrowed)))
    }

    fn post_processor(&self) -> Result<Value> {
        let flag = |key: &str| Ok(self.container.scalar(key)?.and_then(Value::as_bool));
        let begins = match self.model {
            Model::Bytes(words) => words.adds_bos,
            Model::Pieces { .. } => true,
        };
        let (begins, ends) = (flag(key::ADDS_BOS)?.unwrap_or(begins), flag(key::ADDS_EOS)?.unwrap_or(false));
        let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
        let mut pair = vec![single[0].clone(), json!({"Sequence": {"id": "B", "type_id": 1}})];
        let mut tokens = Map::new();
        let wanted = [(begins, "bos_token_id", "begin"), (ends, "eos_token_id", "end")];
        for (_, name, what) in wanted.into_iter().filter(|(wanted, ..)| *wanted) {
            let Some((id, token)) = self.special(name)? else {
                return Err(self.container.refused(format!(
                    "its texts {what} with a special token, but tokenizer.ggml.{name} is missing: download it again"
                )));
            };
            let piece = json!({"SpecialToken": {"id": token, "type_id": 0}});
            let at = |list: &Vec<Value>| if what == "begin" { 0 } else { list.len() };
            single.insert(at(&single), piece.clone());
            pair.insert(at(&pair), piece);
            tokens.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
        }
        if tokens.is_empty() {
            return Ok(Value::Null);
        }
        Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}))
    }

    /// The token id in an entry, if it is valid.
    fn id(&self, name: &str) -> Result<Option<usize>> {
        let id = self.container.scalar(&format!("tokenizer.ggml.{name}"))?.and_then(Value::as_u64);
        // SentencePiece's default, if the file has no entry.
        let default = match (&self.model, name) {
            (Model::Pieces { .. }, "bos_token_id") => Some(1),
            (Model::Pieces { .. }, "eos_token_id") => Some(2),
            (Model::Pieces { .. }, "unknown_token_id") => Some(0),
            _ => None,
        };
        Ok(id.or(default).map(|id| id as usize).filter(|id| *id < self.tokens.len()))
    }

    fn special(&self, name: &str) -> Result<Option<(usize, &str)>> {
        let id = self.id(name)?.filter(|id| !self.tokens[*id].is_empty() && self.kinds[*id] != Kind::Unused);
        Ok(id.map(|id| (id, self.tokens[id].as_str())))
    }

    /// Returns the content of `tokenizer_config.json`.
    pub fn tokenizer_config_json(&self) -> Result<Value> {
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
        });
        for (name, entry) in SPECIAL {
            if let Some((_, token)) = self.special(entry)? {
                config[name] = token.into();
            }
        }
        let default = self.container.text(key::TEMPLATE)?;
        let names = self.container.texts(key::TEMPLATES)?.unwrap_or_default();
        let mut named = Vec::new();
        for name in names.iter().take(64) {
            if let Some(template) = self.container.text(&format!("{}.{name}", key::TEMPLATE))? {
                named.push(json!({"name": name, "template": template}));
            }
        }
        config["chat_template"] = match (default, named.is_empty()) {
            (Some(template), false) => {
                named.insert(0, json!({"name": "default", "template": template}));
                named.into()
            }
            (None, false) => named.into(),
            (default, true) => default.map_or(Value::Null, Value::from),
        };
        Ok(config)
    }

    /// Returns the content of `generation_config.json`: the tokens that begin and end a text.
    pub fn generation_config_json(&self) -> Result<Value> {
        let mut ends: Vec<usize> = Vec::new();
        let entries = ["eos_token_id", "eot_token_id", "eom_token_id"];
        for id in
            entries.into_iter().map(|name| self.id(name)).collect::<Result<Vec<_>>>()?.into_iter().flatten()
        {
            ends.push(id);
        }
        let known = self.tokens.iter().zip(&self.kinds).enumerate();
        let known =
            known.filter(|(_, (token, kind))| **kind == Kind::Control && ENDS.contains(&token.as_str()));
        ends.extend(known.map(|(id, _)| id));
        let mut once = HashSet::new();
        ends.retain(|id| once.insert(*id));
        let mut config = json!({ "eos_token_id": ends });
        if let Some((id, _)) = self.special("bos_token_id")? {
            config["bos_token_id"] = id.into();
        }
        Ok(config)
    }
}
