//! Conversion of text to token ids and back, as defined by `tokenizer.json` and the model's configuration files.

mod bounds;
mod class;
mod file;
mod special;
mod stop;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use crate::panics::panics_are_caught;
use bounds::{Inner, guarded};
use class::Class;
use serde_json::{Map, Value};
use special::Settings;
pub use stop::StopMatcher;
use tokenizers::models::ModelWrapper;
use tokenizers::processors::template::TemplateProcessing;

use crate::error::{Error, Result};
use crate::{files, gguf};

/// The tokenizer of a model with its beginning- and end-of-sequence ids, equivalent to what transformers'
/// `AutoTokenizer` loads from the same folder. Truncation, padding and BPE dropout are disabled even if the file sets
/// them.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
    path: PathBuf,
    special: BTreeSet<u32>,
    bos: Option<(u32, String)>,
    eos_ids: Vec<u32>,
    eos: Option<(u32, String)>,
    /// The number of tokens that the post-processor appends to a text.
    behind: usize,
    /// Whether decoding removes spaces before punctuation.
    clean_up: bool,
    /// The size of the model's vocabulary: ids from here on are errors.
    vocab: usize,
}

/// The components of a tokenizer.
pub(crate) struct Parts {
    /// `tokenizer.json` with the changes of the tokenizer's class.
    pub file: Value,
    /// The added tokens: id, text, and whether it is special.
    pub added: Vec<(u32, String, bool)>,
    /// Special tokens by name.
    pub named: Map<String, Value>,
}

impl Tokenizer {
    /// Loads the tokenizer in `dir` for a model of `vocab` (V) tokens. The tokenizer may have more tokens, such as one
    /// for padding; encoding a text with such a token is an error.
    ///
    /// # Errors
    /// As [`Tokenizer::load`]; [`Error::File`] for a beginning- or end-of-sequence token that the model does not have.
    pub fn load_for(dir: &Path, vocab: usize) -> Result<Tokenizer> {
        let tokenizer = Tokenizer { vocab, ..Tokenizer::load(dir)? };
        let own = tokenizer.eos_ids.iter().copied().chain(tokenizer.bos());
        match own.clone().find(|id| *id as usize >= vocab) {
            None => Ok(tokenizer),
            Some(id) => {
                let why = format!(
                    "{} is the beginning- or end-of-sequence token, but the model's ids end at {}: set another token in \
                     tokenizer_config.json and generation_config.json, or resize the model's embeddings",
                    tokenizer.named(id),
                    vocab.saturating_sub(1)
                );
                Err(Error::file(&tokenizer.path, why))
            }
        }
    }

    /// Loads `tokenizer.json` in `dir`, or the tokenizer of a GGUF file. The class and the special tokens are those of
    /// `tokenizer_config.json`; if that has no `added_tokens_decoder`, also of `special_tokens_map.json` and
    /// `added_tokens.json`. Generation stops at the tokenizer's end-of-sequence token and at those of
    /// `generation_config.json`, or else of `config.json`.
    ///
    /// # Errors
    /// [`Error::File`] for an invalid file, for one that makes a text grow without bound, and for an added token that
    /// cannot have its id.
    pub fn load(dir: &Path) -> Result<Tokenizer> {
        Tokenizer::load_from(dir, |_| ()).map(|(tokenizer, ())| tokenizer)
    }

    /// [`Tokenizer::load`] with the components of the tokenizer, to write it in another format.
    pub(crate) fn load_parts(dir: &Path) -> Result<(Tokenizer, Parts)> {
        let (tokenizer, file) = Tokenizer::load_from(dir, Value::clone)?;
        let added = tokenizer.inner.get_added_tokens_decoder();
        let added = added.iter().map(|(id, token)| (*id, token.content.clone(), token.special)).collect();
        let named = Settings::read(dir, &file)?.named();
        Ok((tokenizer, Parts { file, added, named }))
    }

    /// Loads a tokenizer, and returns the result of `take` on the content of its file.
    fn load_from<T>(dir: &Path, take: impl FnOnce(&Value) -> T) -> Result<(Tokenizer, T)> {
        let (path, mut file) = file::read(dir)?;
        let behind = file::appended_tokens(&file);
        let settings = Settings::read(dir, &file)?;
        settings.rebuild(&mut file);
        let taken = take(&file);
        let mut inner: Inner = guarded(|| Ok(serde_json::from_value(file)?)).map_err(|why| {
            Error::file(&path, format!("is not a tokenizer in the format of transformers ({why})"))
        })?;
        settings.add(&mut inner)?;
        inner.set_encode_special_tokens(settings.is_set("split_special_tokens"));

        // Added tokens as they are written in a text; `id_to_token` returns them after normalization.
        let added = inner.get_added_tokens_decoder();
        let written =
            |id| added.get(&id).map(|token| token.content.clone()).or_else(|| inner.id_to_token(id));
        let named = |name: &str| settings.text(name).and_then(|text| inner.token_to_id(text));
        let mut eos_ids = configured_ids(dir, "eos_token_id")?;
        let eos = named("eos_token").or(eos_ids.first().copied());
        eos_ids.extend(eos.filter(|id| !eos_ids.contains(id)));
        let bos = match settings.text("bos_token") {
            Some(_) => named("bos_token"),
            None if settings.is_null("bos_token") => None,
            None => configured_ids(dir, "bos_token_id")?.first().copied(),
        };
        let bos = bos.and_then(|id| Some((id, written(id)?)));
        let eos = eos.and_then(|id| Some((id, written(id)?)));
        let special = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        // As in transformers: it suits WordPiece, and would damage other texts.
        let clean_up = settings.is_set("clean_up_tokenization_spaces")
            && !matches!(inner.get_model(), ModelWrapper::BPE(_));
        if settings.class() == Class::CodeLlama {
            let first = bos.iter().map(|(id, text)| (text.clone(), *id));
            begin_with(&mut inner, first.collect()).map_err(|why| Error::file(&path, why))?;
        }
        let tokenizer =
            Tokenizer { inner, path, special, bos, eos_ids, eos, behind, clean_up, vocab: usize::MAX };
        Ok((tokenizer, taken))
    }

    /// Encodes `text`, with the special tokens that the tokenizer's post-processor adds (usually BOS).
    ///
    /// # Errors
    /// [`Error::Config`] for a token that the model does not have, and for a text that cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, true)
    }

    /// Encodes a `text` that will be continued: [`encode`](Self::encode) without the tokens that the post-processor
    /// appends.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_beginning(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        ids.truncate(ids.len().saturating_sub(self.behind));
        Ok(ids)
    }

    /// Encodes `text` without adding special tokens. It is for the output of a chat template, which contains them
    /// already: special tokens *written in* `text` are recognised.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode_fast(text, add_special_tokens)).map_err(|why| {
            Error::config("text", format!("cannot be encoded by {} ({why})", self.path.display()))
        })?;
        let ids = encoding.get_ids().to_vec();
        self.check(&ids).map(|()| ids)
    }

    /// Checks that all `ids` are in the model's vocabulary.
    ///
    /// # Errors
    /// [`Error::Config`], which names the first token that is not.
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|id| **id as usize >= self.vocab) {
            None => Ok(()),
            Some(id) => {
                let why = format!(
                    "has {}, but the model's ids end at {}: remove the token, or resize the model's embeddings",
                    self.named(*id),
                    self.vocab.saturating_sub(1)
                );
                Err(Error::config("text", why))
            }
        }
    }

    /// A token's description for messages.
    fn named(&self, id: u32) -> String {
        match self.inner.id_to_token(id) {
            Some(token) => format!("the token {token:?} with id {id}"),
            None => format!("the token with id {id}"),
        }
    }

    /// Decodes `ids`; `skip_special` omits special tokens. Ids without a token are omitted, too.
    ///
    /// # Errors
    /// [`Error::File`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        // Filtered here, since the library mistakes a special token for another one if its text is normalized.
        let kept: Vec<u32> =
            ids.iter().copied().filter(|id| !(skip_special && self.special.contains(id))).collect();
        let text = guarded(|| self.inner.decode(&kept, false));
        let text = text.map_err(|why| Error::file(&self.path, format!("cannot decode token ids ({why})")))?;
        Ok(if self.clean_up { without_spaces(text) } else { text })
    }

    /// Returns the text that `ids` add to the text of the preceding ids `before`. A prompt followed by this text is
    /// encoded to the same ids again. Unlike [`decode`](Self::decode) of `ids` alone, it keeps the space before the
    /// first word, which Llama's decoders strip from the beginning of a text.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode_after(&self, before: &[u32], ids: &[u32], skip_special: bool) -> Result<String> {
        // A few tokens are enough to avoid the special treatment of the beginning of a text.
        let before = &before[before.len().saturating_sub(8)..];
        let head = self.decode(before, skip_special)?;
        let mut whole = self.decode(&[before, ids].concat(), skip_special)?;
        // The head need not be a prefix if the bytes of a character are split between the two.
        let common = head.chars().zip(whole.chars()).take_while(|(a, b)| a == b);
        let common = common.map(|(c, _)| c.len_utf8()).sum();
        Ok(whole.split_off(common))
    }

    /// Returns the id of exactly this token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The beginning-of-sequence id, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos.as_ref().map(|&(id, _)| id)
    }

    /// Returns a token that can pad the texts of the model in `dir`: the tokenizer's padding token, or else one that
    /// texts rarely contain. `None` if there is no tokenizer, which a dry run does not need.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn padding_of(dir: &Path) -> Result<Option<u32>> {
        if !files::exists(&dir.join("tokenizer.json")) {
            return Ok(None);
        }
        let tokenizer = Tokenizer::load(dir)?;
        let known = ["<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>"];
        let other = known
            .iter()
            .find_map(|token| tokenizer.token_to_id(token).filter(|id| Some(*id) != tokenizer.eos()));
        Ok(other.or(tokenizer.eos()))
    }

    /// The id that ends a training text: the tokenizer's end-of-sequence token, or else the first of
    /// [`eos_ids`](Self::eos_ids).
    pub fn eos(&self) -> Option<u32> {
        self.eos.as_ref().map(|&(id, _)| id)
    }

    /// The text of [`eos`](Self::eos).
    pub fn eos_text(&self) -> Option<&str> {
        self.eos.as_ref().map(|(_, text)| text.as_str())
    }

    /// The ids at which generation stops.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }
}

/// Makes the post-processor prepend `tokens` to a text, and append none.
fn begin_with(inner: &mut Inner, tokens: Vec<(String, u32)>) -> Result<(), String> {
    let single = tokens.iter().map(|(text, _)| text.clone()).chain(["$A".to_owned()]).collect::<Vec<_>>();
    let template = TemplateProcessing::builder().try_single(single).map(|b| b.special_tokens(tokens).build());
    let template = template.and_then(|built| built.map_err(|e| e.to_string()))?;
    inner.with_post_processor(Some(template));
    Ok(())
}

/// Removes spaces before punctuation and contractions, as transformers does.
fn without_spaces(mut text: String) -> String {
    for mark in [" .", " ?", " !", " ,"] {
        text = text.replace(mark, &mark[1..]);
    }
    text = text.replace(" ' ", "'");
    for contraction in [" n't", " 'm", " 's", " 've", " 're"] {
        text = text.replace(contraction, &contraction[1..]);
    }
    text
}

/// The named special tokens of the tokenizer in `dir`, for a chat template.
pub(super) fn special_tokens(dir: &Path) -> Result<Map<String, Value>> {
    let file = gguf::json(dir, "tokenizer.json")?.1.unwrap_or_default();
    Ok(Settings::read(dir, &file)?.named())
}

/// The ids under `name` in the model's configuration files in `dir`; `generation_config.json` takes precedence.
pub(crate) fn configured_ids(dir: &Path, name: &str) -> Result<Vec<u32>> {
    // A GGUF file has a single set of metadata.
    let files = if gguf::file_of(dir)?.is_some() { 1 } else { 2 };
    for file in &["generation_config.json", "config.json"][..files] {
        let (path, value) = gguf::json(dir, file)?;
        let value = value.unwrap_or_default();
        let ids = token_ids(&value[name]).map_err(|why| Error::file(&path, format!("{name} {why}")))?;
        if !ids.is_empty() {
            return Ok(ids);
        }
    }
    Ok(Vec::new())
}

/// Reads a `…_token_id` entry: absent, null, a number or a list. The error continues "eos_token_id …".
fn token_ids(value: &Value) -> Result<Vec<u32>, &'static str> {
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or("must be a token id or a list of token ids")
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.iter().map(id).collect(),
        one => Ok(vec![id(one)?]),
    }
}

#[cfg(test)]
mod tests;
