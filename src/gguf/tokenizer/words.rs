//! The pre-tokenizers of byte-level tokenizers, which divide a text into words, by their names in GGUF.

use serde_json::{Value, json};

/// A pre-tokenizer.
pub(super) struct Words {
    /// Its names in GGUF; the first is used for writing.
    pub names: &'static [&'static str],
    /// How words are found.
    pub split: Split,
    /// Whether the models' own tokenizers first normalize a text to NFC.
    pub composed: bool,
    /// Whether a word that is a token is used as it is, without applying merges.
    pub ignore_merges: bool,
    /// Whether a text begins with the beginning-of-sequence token if the file does not say.
    pub adds_bos: bool,
}

/// How words are found.
pub(super) enum Split {
    /// By GPT-2's regular expression.
    Gpt2,
    /// Single digits, then by GPT-2's regular expression.
    Digits,
    /// By several regular expressions in sequence.
    Expressions(&'static [&'static str]),
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

const fn words(names: &'static [&'static str], split: Split) -> Words {
    Words { names, split, composed: false, ignore_merges: false, adds_bos: false }
}

/// The pre-tokenizers of supported families. If several fit a tokenizer, the first is written.
pub(super) static ALL: [Words; 9] = [
    words(
        &["gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "jais", "trillion", "granite-docling"],
        Split::Gpt2,
    ),
    // GPT-NeoX's, of Pythia and the first OLMo.
    Words { composed: true, ..words(&["olmo", "mpt"], Split::Gpt2) },
    words(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        Split::Digits,
    ),
    Words {
        ignore_merges: true,
        adds_bos: true,
        ..words(&["llama-bpe", "llama3", "llama-v3", "smaug-bpe", "pixtral"], Split::Expressions(&[LLAMA3]))
    },
    words(&["dbrx"], Split::Expressions(&[LLAMA3])),
    Words { composed: true, ..words(&["qwen2", "stablelm2", "megrez"], Split::Expressions(&[QWEN2])) },
    words(&["deepseek-r1-qwen"], Split::Expressions(&[QWEN2])),
    Words { ignore_merges: true, adds_bos: true, ..words(&["tekken"], Split::Expressions(&[TEKKEN])) },
    words(&["gpt-4o", "llama4"], Split::Expressions(&[GPT4O])),
];

/// llama.cpp's default if a file names none.
pub(super) static DEFAULT: Words =
    words(&["default"], Split::Expressions(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]));

impl Words {
    /// Returns the pre-tokenizer with this name.
    pub fn named(name: &str) -> Option<&'static Words> {
        [&DEFAULT].into_iter().chain(&ALL).find(|words| words.names.contains(&name))
    }

    /// Returns the pre-tokenizer that is equivalent to that of a `tokenizer.json`.
    pub fn of(file: &Value) -> Option<&'static Words> {
        let steps = plain_steps(&file["pre_tokenizer"]);
        let composed = file["normalizer"]["type"] == "NFC";
        let ignore_merges = file["model"]["ignore_merges"] == true;
        let same = |words: &&Words| plain_steps(&words.pre_tokenizer()) == steps;
        let mut fitting: Vec<&Words> = ALL.iter().filter(same).collect();
        // `composed` is only a preference, since llama.cpp does not normalize.
        fitting.sort_by_key(|words| (words.ignore_merges != ignore_merges, words.composed != composed));
        fitting.first().copied()
    }

    /// The pre-tokenizer in the format of transformers.
    pub fn pre_tokenizer(&self) -> Value {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let steps = match self.split {
            Split::Gpt2 => return bytes(true),
            Split::Digits => vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)],
            Split::Expressions(all) => {
                let split = |expression: &&str| json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
                all.iter().map(split).chain([bytes(false)]).collect()
            }
        };
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

/// The steps of a pre-tokenizer, without settings that do not affect the tokens.
fn plain_steps(part: &Value) -> Vec<Value> {
    let steps = match part["pretokenizers"].as_array() {
        Some(steps) => steps.clone(),
        None => vec![part.clone()],
    };
    let plain = |mut step: Value| {
        step.as_object_mut().map(|step| step.remove("trim_offsets"));
        step
    };
    steps.into_iter().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pre_tokenizer_is_found_by_its_names_and_by_its_steps() {
        for words in ALL.iter().chain([&DEFAULT]) {
            for name in words.names {
                assert!(std::ptr::eq(Words::named(name).unwrap(), words), "{name}");
            }
        }
        for words in &ALL {
            let normalizer = if words.composed { json!({"type": "NFC"}) } else { Value::Null };
            let file = json!({"pre_tokenizer": words.pre_tokenizer(), "normalizer": normalizer,
                "model": {"ignore_merges": words.ignore_merges}});
            let found = Words::of(&file).unwrap();
            assert!(std::ptr::eq(found, words), "{} is taken for {}", words.names[0], found.names[0]);
        }
        assert!(Words::named("bloom").is_none());
        assert!(Words::of(&json!({"pre_tokenizer": {"type": "Whitespace"}})).is_none());
    }
}
