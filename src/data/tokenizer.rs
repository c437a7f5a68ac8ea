//! Text to token ids and back, as `tokenizer.json` and the model's configuration files say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files;

/// The tokenizer of a model, with the ids that begin and end its texts.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    special: BTreeSet<u32>,
    bos: Option<(u32, String)>,
    eos_ids: Vec<u32>,
    eos: Option<(u32, String)>,
    /// Ids from here on are not the model's.
    vocab: usize,
}

impl Tokenizer {
    /// The tokenizer in `dir`, for a model of `vocab` (V) tokens. A tokenizer may know more, such as a token for
    /// padding; a text that has one of them is refused when it is encoded.
    ///
    /// # Errors
    /// As [`Tokenizer::load`]; [`Error::File`] for a begin- or end-of-sequence token that the model does not have.
    pub fn load_for(dir: &Path, vocab: usize) -> Result<Tokenizer> {
        let tokenizer = Tokenizer { vocab, ..Tokenizer::load(dir)? };
        let beyond = |id: &&u32| **id as usize >= vocab;
        let own = tokenizer.eos_ids.iter().chain(tokenizer.bos.iter().map(|(id, _)| id));
        match own.clone().find(beyond) {
            None => Ok(tokenizer),
            Some(id) => Err(Error::file(&tokenizer.path, tokenizer.beyond_vocabulary(*id))),
        }
    }

    /// Loads `tokenizer.json` in `dir`; the ids of the special tokens come from `generation_config.json`, or
    /// else `config.json`, or else `tokenizer_config.json`, as far as these are there.
    pub fn load(dir: &Path) -> Result<Tokenizer> {
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            let why = "has no tokenizer.json: save the model's tokenizer there with transformers";
            return Err(Error::file(dir, why));
        }
        let mut inner = tokenizers::Tokenizer::from_bytes(files::read(&path)?).map_err(|e| {
            Error::file(&path, format!("is not a tokenizer of the kind that transformers saves ({e})"))
        })?;
        // Some files keep the settings of their last training run.
        inner.with_truncation(None).map_err(|e| Error::file(&path, e.to_string()))?;
        inner.with_padding(None);

        let bos_ids = configured_ids(dir, "bos_token_id")?;
        let mut eos_ids = configured_ids(dir, "eos_token_id")?;
        let config = files::read_json_if_present(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let named = |name: &str| {
            let token = &config[name];
            token.as_str().or(token["content"].as_str()).and_then(|token| inner.token_to_id(token))
        };
        if eos_ids.is_empty() {
            eos_ids.extend(named("eos_token"));
        }
        // The token that the tokenizer ends a text with, as long as generation stops at it too.
        let eos = named("eos_token").filter(|id| eos_ids.contains(id)).or(eos_ids.first().copied());
        let bos = named("bos_token").or(bos_ids.first().copied());
        // Added tokens by what is written in a text: `id_to_token` gives them as the normaliser changes them.
        let added = inner.get_added_tokens_decoder();
        let written =
            |id| added.get(&id).map(|token| token.content.clone()).or_else(|| inner.id_to_token(id));
        let bos = bos.and_then(|id| Some((id, written(id)?)));
        let eos = eos.and_then(|id| Some((id, written(id)?)));
        let special = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        Ok(Tokenizer { inner, path, special, bos, eos_ids, eos, vocab: usize::MAX })
    }

    /// Token ids of `text`, with the special tokens that the tokenizer's post-processor adds (mostly BOS).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, true)
    }

    /// Token ids of `text` alone, as for a completion, or for what a chat template rendered, which has written its
    /// special tokens itself: special tokens *written in* `text` become such.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special_tokens);
        let encoding =
            encoding.map_err(|e| Error::file(&self.path, format!("cannot encode a text ({e})")))?;
        match encoding.get_ids().iter().find(|id| **id as usize >= self.vocab) {
            None => Ok(encoding.get_ids().to_vec()),
            Some(id) => Err(Error::config("text", self.beyond_vocabulary(*id))),
        }
    }

    fn beyond_vocabulary(&self, id: u32) -> String {
        let token = self.inner.id_to_token(id).map_or_else(String::new, |token| format!("{token:?} "));
        let last = self.vocab.saturating_sub(1);
        format!(
            "the token {token}has id {id}, but the model's ids end at {last}: take the token out, or resize the model's embeddings"
        )
    }

    /// The text of `ids`; `skip_special` leaves special tokens out. Ids without a token are left out, too.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        // Not left to the library, which takes a special token for another one once it is normalised.
        let kept: Vec<u32> =
            ids.iter().copied().filter(|id| !(skip_special && self.special.contains(id))).collect();
        let text = self.inner.decode(&kept, false);
        text.map_err(|e| Error::file(&self.path, format!("cannot decode token ids ({e})")))
    }

    /// The text that `ids` add to that of the ids `before` them. Unlike [`decode`](Self::decode) of `ids` alone it
    /// keeps the space before the first word, which Llama's decoders strip from the beginning of a text.
    pub fn decode_after(&self, before: &[u32], ids: &[u32], skip_special: bool) -> Result<String> {
        // A few tokens are enough to stand in the middle of a text.
        let before = &before[before.len().saturating_sub(8)..];
        let head = self.decode(before, skip_special)?;
        let whole = self.decode(&[before, ids].concat(), skip_special)?;
        match whole.strip_prefix(&head) {
            Some(added) => Ok(added.to_owned()),
            // A character whose bytes are divided between the two.
            None => self.decode(ids, skip_special),
        }
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// The id of exactly this token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id that begins a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos.as_ref().map(|&(id, _)| id)
    }

    /// The id that ends a training text: one of [`eos_ids`](Self::eos_ids), the tokenizer's own where it is among them.
    pub fn eos(&self) -> Option<u32> {
        self.eos.as_ref().map(|&(id, _)| id)
    }

    /// How [`eos`](Self::eos) is written in a text.
    pub fn eos_text(&self) -> Option<&str> {
        self.eos.as_ref().map(|(_, text)| text.as_str())
    }

    /// The ids at which generation stops.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }
}

/// The ids that the model's configuration files in `dir` give under `name`, the more particular file first.
pub(crate) fn configured_ids(dir: &Path, name: &str) -> Result<Vec<u32>> {
    for file in ["generation_config.json", "config.json"] {
        let path = dir.join(file);
        let value = files::read_json_if_present(&path)?.unwrap_or_default();
        let ids = token_ids(&value[name]).map_err(|why| Error::file(&path, format!("{name} {why}")))?;
        if !ids.is_empty() {
            return Ok(ids);
        }
    }
    Ok(Vec::new())
}

/// The ids in a `…_token_id` entry: absent, null, a number or a list. The error continues "eos_token_id …".
pub(crate) fn token_ids(value: &Value) -> Result<Vec<u32>, &'static str> {
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

/// Finds stop strings in generated text.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
}

impl StopMatcher {
    /// Stops at the first of `stops` to occur; empty strings are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> StopMatcher {
        StopMatcher { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect() }
    }

    /// The generated text before the earliest stop string, or `None` as long as there is none. `before` are the
    /// prompt's ids, `ids` all those generated so far: the whole is decoded each time, as a token's text can depend
    /// on its neighbours (bytes of one character, a stripped space) and decoding is cheap beside a model's step.
    pub fn cut(&self, tokenizer: &Tokenizer, before: &[u32], ids: &[u32]) -> Result<Option<String>> {
        if self.stops.is_empty() {
            return Ok(None);
        }
        // Special tokens stay visible: a stop string may be one.
        let mut text = tokenizer.decode_after(before, ids, false)?;
        let Some(end) = self.stops.iter().filter_map(|stop| text.find(stop)).min() else { return Ok(None) };
        text.truncate(end);
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{shared, write_atomic};

    /// Words, ids up to 600 with gaps, BOS added to each text, a truncation to be ignored.
    const TOKENIZER: &str = r#"{
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "normalizer": null,
        "added_tokens": [
            {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 600, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "▁one": 3, "▁two": 4, "▁stop": 5, "▁now": 6, "<|end|>": 600},
            "unk_token": "<unk>"}}"#;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            write_atomic(&dir.path().join(name), content.as_bytes()).unwrap();
        }
        dir
    }

    fn small(files: &[(&str, &str)]) -> Tokenizer {
        let dir = folder(&[&[("tokenizer.json", TOKENIZER)], files].concat());
        Tokenizer::load(dir.path()).unwrap()
    }

    const SPECIAL: &str = r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}"#;

    #[test]
    fn the_known_prompt_has_the_known_ids() {
        let known: [(&str, usize, &[u32]); 2] = [
            ("models/stories260K", 512, &[1, 403, 407, 261, 378]),
            ("models/TinyStories-656K", 2048, &[1, 80, 147, 201, 282, 57]),
        ];
        for (model, vocab_size, ids) in known {
            let Some(dir) = shared(model) else { return };
            let tokenizer = Tokenizer::load_for(&dir, vocab_size).unwrap();
            assert_eq!(tokenizer.encode("Once upon a time").unwrap(), ids, "{model}");
            assert_eq!(tokenizer.encode_plain("Once upon a time").unwrap(), ids[1..], "{model}");
            assert_eq!(tokenizer.decode(ids, true).unwrap(), "Once upon a time", "{model}");
            assert_eq!(
                (tokenizer.bos(), tokenizer.eos(), tokenizer.eos_ids()),
                (Some(1), Some(2), &[2][..]),
                "{model}"
            );
            assert_eq!(tokenizer.vocab_size(), vocab_size, "{model}");
            let rendered = format!("{}Once upon", tokenizer.decode(&ids[..1], false).unwrap().trim_start());
            let ids_of_rendered = tokenizer.encode_plain(&rendered).unwrap();
            assert_eq!(ids_of_rendered.iter().filter(|&&id| id == 1).count(), 1, "{model}");
            let next = tokenizer.encode_plain("there was").unwrap();
            assert_eq!(tokenizer.decode_after(ids, &next, true).unwrap(), " there was", "{model}");
        }
    }

    #[test]
    fn special_tokens_are_added_once() {
        let tokenizer = small(&[("tokenizer_config.json", SPECIAL)]);
        assert_eq!(tokenizer.encode("one two one").unwrap(), [1, 3, 4, 3]);
        assert_eq!(tokenizer.encode_plain("one two").unwrap(), [3, 4]);
        assert_eq!(tokenizer.encode_plain("<s>one two").unwrap(), [1, 3, 4]);
        assert_eq!(tokenizer.token_to_id("<|end|>"), Some(600));
        assert_eq!(tokenizer.decode(&[1, 3, 4, 2], true).unwrap(), "one two");
        assert_eq!(tokenizer.decode(&[9999], true).unwrap(), "");
    }

    #[test]
    fn the_eos_ids_are_those_that_generation_stops_at() {
        let config = ("config.json", r#"{"eos_token_id": 2}"#);
        let tokenizer = small(&[config, ("tokenizer_config.json", SPECIAL)]);
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.eos_ids()), (Some(1), Some(2), &[2][..]));
        let generation = ("generation_config.json", r#"{"eos_token_id": [600, 2], "bos_token_id": null}"#);
        let tokenizer = small(&[config, generation, ("tokenizer_config.json", SPECIAL)]);
        assert_eq!((tokenizer.eos(), tokenizer.eos_ids()), (Some(2), &[600, 2][..]));
        let tokenizer = small(&[config, generation]);
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(600)));
        let tokenizer = small(&[("tokenizer_config.json", SPECIAL)]);
        assert_eq!((tokenizer.eos(), tokenizer.eos_ids()), (Some(2), &[2][..]));
        let tokenizer = small(&[]);
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.eos_ids()), (None, None, &[][..]));
    }

    #[test]
    fn a_token_beyond_the_models_vocabulary_is_refused_where_a_text_has_it() {
        let files = folder(&[("tokenizer.json", TOKENIZER)]);
        let tokenizer = Tokenizer::load_for(files.path(), 512).unwrap();
        assert_eq!(tokenizer.encode("one two").unwrap(), [1, 3, 4]);
        let error = tokenizer.encode("one<|end|>").unwrap_err().to_string();
        assert!(error.contains("\"<|end|>\" has id 600, but the model's ids end at 511"), "{error}");
        let eos = folder(&[("tokenizer.json", TOKENIZER), ("config.json", r#"{"eos_token_id": 700}"#)]);
        let error = Tokenizer::load_for(eos.path(), 601).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: the token has id 700"), "{error}");
    }

    #[test]
    fn a_stop_string_across_tokens_cuts_the_text_before_it() {
        let tokenizer = small(&[]);
        let stops = ["two stop", "stop now", ""].map(str::to_owned);
        let matcher = StopMatcher::new(stops);
        let before = tokenizer.encode("one").unwrap();
        assert_eq!(matcher.cut(&tokenizer, &before, &[3]).unwrap(), None);
        assert_eq!(matcher.cut(&tokenizer, &before, &[3, 5]).unwrap(), None);
        assert_eq!(matcher.cut(&tokenizer, &before, &[3, 5, 6, 4]).unwrap().unwrap(), " one ");
        assert_eq!(matcher.cut(&tokenizer, &before, &[4, 5, 6]).unwrap().unwrap(), " ");
        assert_eq!(matcher.cut(&tokenizer, &[], &[3, 4, 5]).unwrap().unwrap(), "one ");
        assert_eq!(StopMatcher::default().cut(&tokenizer, &[], &[5, 6]).unwrap(), None);
        let special = StopMatcher::new(["<|end|>".to_owned()]);
        assert_eq!(special.cut(&tokenizer, &[], &[3, 600, 4]).unwrap().unwrap().trim_end(), "one");
    }

    #[test]
    fn broken_files_are_clear_errors() {
        let load = |files: &[(&str, &str)]| Tokenizer::load(folder(files).path()).unwrap_err().to_string();
        assert!(load(&[]).contains("has no tokenizer.json"));
        assert!(load(&[("tokenizer.json", "{")]).contains("is not a tokenizer"));
        assert!(load(&[("tokenizer.json", "{}")]).contains("is not a tokenizer"));
        let eos = load(&[("tokenizer.json", TOKENIZER), ("config.json", r#"{"eos_token_id": "two"}"#)]);
        assert!(eos.contains("config.json: eos_token_id must be a token id"), "{eos}");
        let eos =
            load(&[("tokenizer.json", TOKENIZER), ("generation_config.json", r#"{"eos_token_id": [-1]}"#)]);
        assert!(eos.contains("generation_config.json: eos_token_id must be"), "{eos}");
        assert!(load(&[("tokenizer.json", TOKENIZER), ("config.json", "no")]).contains("is not valid JSON"));
    }
}
