//! Special and added tokens, read from the files next to `tokenizer.json` as transformers reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Model};

use super::bounds::{Inner, guarded};
use super::class::Class;
use super::file::token_id;
use crate::error::{Error, Result};
use crate::gguf;

/// The special tokens that any tokenizer of transformers may have.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The tokenizer settings in the configuration files of a folder.
#[derive(Debug)]
pub(super) struct Settings {
    path: PathBuf,
    config: Map<String, Value>,
    class: Class,
    /// Added tokens by their required ids.
    added: BTreeMap<u32, AddedToken>,
    /// Special tokens with a name, and special tokens without.
    named: Vec<(String, AddedToken)>,
    unnamed: Vec<AddedToken>,
}

impl Settings {
    /// Reads `tokenizer_config.json` in `dir`; if it has no `added_tokens_decoder`, also `special_tokens_map.json` and
    /// `added_tokens.json`. `file` is the content of `tokenizer.json`.
    pub(super) fn read(dir: &Path, file: &Value) -> Result<Settings> {
        let (path, mut config) = object(dir, "tokenizer_config.json")?;
        // A GGUF file needs no class, and its other metadata describe the model.
        let model_config = match gguf::file_of(dir)? {
            Some(_) => Map::new(),
            None => object(dir, "config.json")?.1,
        };
        let class = [&config, &model_config].iter().find_map(|map| map.get("tokenizer_class")?.as_str());
        let class = Class::of(class.unwrap_or_default(), file);
        let mut settings = Settings {
            path,
            config: Map::new(),
            class,
            added: BTreeMap::new(),
            named: vec![],
            unnamed: vec![],
        };
        let complete = config.get("added_tokens_decoder").is_some_and(|tokens| !tokens.is_null());
        if complete {
            settings.added = decoder(&config["added_tokens_decoder"]).map_err(|why| settings.error(why))?;
        } else {
            for (name, value) in object(dir, "special_tokens_map.json")?.1 {
                config.insert(name, value);
            }
        }
        settings.name(&config).map_err(|why| settings.error(why))?;
        if !complete {
            let (path, added) = object(dir, "added_tokens.json")?;
            settings.complete(&added, file).map_err(|why| Error::file(path, why))?;
        }
        // The settings of an added token also apply to it as a named token.
        let known: BTreeMap<&str, &AddedToken> =
            settings.added.values().map(|token| (token.content.as_str(), token)).collect();
        for (_, token) in &mut settings.named {
            if let Some(known) = known.get(token.content.as_str()) {
                *token = (*known).clone();
            }
        }
        settings.config = config;
        Ok(settings)
    }

    fn error(&self, why: String) -> Error {
        Error::file(&self.path, why)
    }

    /// Reads the special tokens that `config` names.
    fn name(&mut self, config: &Map<String, Value>) -> Result<(), String> {
        let token = |name: &str, value: &Value| special(value).map_err(|why| format!("{name} {why}"));
        for name in NAMES {
            match config.get(name) {
                Some(Value::Null) => {}
                Some(value) => self.named.push((name.into(), token(name, value)?)),
                None => {
                    let own = self.class.special_tokens().iter().find(|(own, _)| *own == name);
                    self.named.extend(own.map(|(_, text)| (name.to_owned(), AddedToken::from(*text, true))));
                }
            }
        }
        // Tokens of this tokenizer only: those of its class, then keys such as "image_token".
        let own = self.class.special_tokens().iter().filter(|(name, _)| !NAMES.contains(name));
        let own: Vec<_> = own.filter(|(name, _)| !config.contains_key(*name)).collect();
        self.named
            .extend(own.into_iter().map(|(name, text)| ((*name).to_owned(), AddedToken::from(*text, true))));
        for (name, value) in config {
            let text = value.is_string() || value["__type"] == "AddedToken";
            if name.ends_with("_token") && !NAMES.contains(&name.as_str()) && text {
                self.named.push((name.clone(), token(name, value)?));
            }
        }
        let list = |name: &'static str| {
            let list = config.get(name)?;
            let empty = list.is_null()
                || list.as_array().is_some_and(Vec::is_empty)
                || list.as_object().is_some_and(Map::is_empty);
            (!empty).then_some((name, list))
        };
        match config.get("model_specific_special_tokens") {
            None | Some(Value::Null) => {}
            Some(Value::Object(tokens)) => self.name_all(tokens)?,
            Some(_) => return Err("model_specific_special_tokens must be an object that names tokens".into()),
        }
        match list("extra_special_tokens").or_else(|| list("additional_special_tokens")) {
            None => {}
            Some((name, Value::Array(tokens))) => {
                self.unnamed = tokens.iter().map(|value| token(name, value)).collect::<Result<_, _>>()?;
            }
            Some((_, Value::Object(tokens))) => self.name_all(tokens)?,
            Some((name, _)) => {
                return Err(format!("{name} must be a list of tokens, or an object that names them"));
            }
        }
        Ok(())
    }

    /// Adds special tokens by name, replacing those of the same name.
    fn name_all(&mut self, tokens: &Map<String, Value>) -> Result<(), String> {
        for (name, value) in tokens {
            let token = special(value).map_err(|why| format!("{name} {why}"))?;
            self.named.retain(|(known, _)| known != name);
            self.named.push((name.clone(), token));
        }
        Ok(())
    }

    /// Collects the added tokens of a folder whose `tokenizer_config.json` has none. `legacy` is `added_tokens.json`,
    /// which has their ids; the tokens of `tokenizer.json` override them.
    fn complete(&mut self, legacy: &Map<String, Value>, file: &Value) -> Result<(), String> {
        for (text, id) in legacy {
            let special = self.special_texts().any(|known| known == text);
            self.added.insert(
                token_id(id).ok_or_else(|| format!("{text:?} {NO_ID}"))?,
                AddedToken::from(text, special),
            );
        }
        for token in file["added_tokens"].as_array().into_iter().flatten() {
            // The library reports invalid tokens.
            if let (Some(id), Ok(token)) = (token_id(&token["id"]), added(token)) {
                self.added.insert(id, token);
            }
        }
        Ok(())
    }

    fn special_texts(&self) -> impl Iterator<Item = &str> {
        let named = self.named.iter().map(|(_, token)| token);
        named.chain(&self.unnamed).map(|token| token.content.as_str())
    }

    /// The texts of the special tokens that have a name.
    pub(super) fn named(&self) -> Map<String, Value> {
        self.named.iter().map(|(name, token)| (name.clone(), token.content.as_str().into())).collect()
    }

    /// The text of the token called `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.named.iter().find(|(known, _)| known == name);
        found.map(|(_, token)| token.content.as_str())
    }

    /// Whether `tokenizer_config.json` sets the key to null.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.config.get(key).is_some_and(Value::is_null)
    }

    /// Whether a boolean of `tokenizer_config.json` is true.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.config.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The class with which transformers loads the tokenizer.
    pub(super) fn class(&self) -> Class {
        self.class
    }

    /// Changes `tokenizer.json` as that class does.
    pub(super) fn rebuild(&self, file: &mut Value) {
        self.class.rebuild(file, &self.config, self.text("unk_token"));
    }

    /// Adds the missing tokens to `tokenizer`, and checks that each has the id of the files.
    pub(super) fn add(&self, tokenizer: &mut Inner) -> Result<()> {
        let named: Vec<&str> = self.named.iter().map(|(_, token)| token.content.as_str()).collect();
        let known = |tokenizer: &Inner, token: &AddedToken| {
            tokenizer.get_added_vocabulary().get_vocab().contains_key(&token.content)
        };
        let added = tokenizer.get_added_vocabulary();
        let same = |token: &AddedToken| {
            let id = added.get_vocab().get(&token.content);
            id.and_then(|id| added.get_added_tokens_decoder().get(id)) == Some(token)
        };
        let changed = self.added.iter().filter(|(_, token)| !same(token));
        let mut tokens: Vec<(Option<u32>, AddedToken)> = Vec::new();
        for (id, token) in changed {
            let special = token.special || named.contains(&token.content.as_str());
            tokens.push((Some(*id), token.clone().special(special)));
        }
        for token in self.named.iter().map(|(_, token)| token).chain(&self.unnamed) {
            if !known(tokenizer, token) && !tokens.iter().any(|(_, other)| other.content == token.content) {
                tokens.push((None, token.clone().special(true)));
            }
        }
        if self.class == Class::Qwen2 {
            let all = self.special_texts().map(|text| (None, AddedToken::from(text, true)));
            tokens.extend(all);
        }
        let new = |(_, token): &&(Option<u32>, AddedToken)| tokenizer.token_to_id(&token.content).is_none();
        let new: Vec<(Option<u32>, String)> =
            tokens.iter().filter(new).map(|(id, token)| (*id, token.content.clone())).collect();
        guarded(|| tokenizer.add_tokens(tokens.into_iter().map(|(_, token)| token)))
            .map_err(|why| self.error(format!("cannot add its added tokens ({why})")))?;
        for (wanted, text) in new {
            let Some(id) = tokenizer.token_to_id(&text) else { continue };
            let taken = tokenizer.get_model().id_to_token(id);
            let wanted = wanted.unwrap_or(id);
            if let Some(other) =
                taken.or_else(|| (wanted != id).then(|| tokenizer.id_to_token(wanted)).flatten())
            {
                return Err(self.error(format!(
                    "token {text:?} must have id {wanted}, which tokenizer.json gives to {other:?}: save the \
                     tokenizer again with transformers, so that both files agree"
                )));
            }
            if wanted != id {
                return Err(self.error(format!(
                    "token {text:?} must have id {wanted}, but tokenizer.json lacks it and its next id is {id}: \
                     save the tokenizer again with transformers, so that both files agree"
                )));
            }
        }
        Ok(())
    }
}

const NO_ID: &str = "must have a token id, a whole number";

/// Returns the object in the file `name` of the model in `dir`, and the path. The object is empty if the file does not
/// exist.
fn object(dir: &Path, name: &str) -> Result<(PathBuf, Map<String, Value>)> {
    match gguf::json(dir, name)? {
        (path, None) => Ok((path, Map::new())),
        (path, Some(Value::Object(map))) => Ok((path, map)),
        (path, Some(_)) => Err(Error::file(path, "must be a JSON object")),
    }
}

/// Reads `added_tokens_decoder`: tokens by their ids, which are strings in JSON.
fn decoder(value: &Value) -> Result<BTreeMap<u32, AddedToken>, String> {
    let Value::Object(tokens) = value else {
        return Err("added_tokens_decoder must be an object of tokens by id".into());
    };
    let entry = |(id, value): (&String, &Value)| {
        let token = added(value).map_err(|why| format!("added_tokens_decoder: token {id:?} {why}"))?;
        let id = id.parse::<u64>().ok().and_then(|id| token_id(&id.into()));
        Ok((id.ok_or_else(|| format!("added_tokens_decoder: {:?} {NO_ID}", token.content))?, token))
    };
    tokens.iter().map(entry).collect()
}

/// Reads a special token: a string, or an object with its settings.
fn special(value: &Value) -> Result<AddedToken, String> {
    match value {
        Value::String(text) => Ok(AddedToken::from(text, true)),
        value => added(value).map_err(|_| "must be a string, or an object with \"content\"".into()),
    }
}

/// Reads a token from an object. The error continues "token …".
fn added(value: &Value) -> Result<AddedToken, String> {
    let Some(text) = value["content"].as_str() else {
        return Err("must be an object with \"content\"".into());
    };
    let flag = |name: &str| value[name].as_bool();
    let special = flag("special").unwrap_or(false);
    Ok(AddedToken {
        content: text.to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}
