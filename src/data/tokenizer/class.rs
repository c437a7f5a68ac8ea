//! Tokenizer classes of transformers that use a file's vocabulary and merges, but replace its other parts.

use serde_json::{Map, Value, json};

/// How transformers changes `tokenizer.json`, by the class that a configuration file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The file is used unchanged.
    File,
    /// `LlamaTokenizer`.
    Llama,
    /// `CodeLlamaTokenizer`.
    CodeLlama,
    /// `GPT2Tokenizer`.
    Gpt2,
    /// `GPTNeoXTokenizer`.
    GptNeoX,
    /// `Qwen2Tokenizer`.
    Qwen2,
    /// `GemmaTokenizer`.
    Gemma,
}

const LLAMA: &[(&str, &str)] = &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")];
const CODE_LLAMA: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("prefix_token", "▁<PRE>"),
    ("middle_token", "▁<MID>"),
    ("suffix_token", "▁<SUF>"),
    ("eot_token", "▁<EOT>"),
    ("fill_token", "<FILL_ME>"),
];
const END_OF_TEXT: &str = "<|endoftext|>";
const GPT2: &[(&str, &str)] =
    &[("bos_token", END_OF_TEXT), ("eos_token", END_OF_TEXT), ("unk_token", END_OF_TEXT)];
const GPT_NEOX: &[(&str, &str)] = &[
    ("bos_token", END_OF_TEXT),
    ("eos_token", END_OF_TEXT),
    ("unk_token", END_OF_TEXT),
    ("pad_token", "<|padding|>"),
];
const QWEN2: &[(&str, &str)] =
    &[("eos_token", END_OF_TEXT), ("unk_token", END_OF_TEXT), ("pad_token", END_OF_TEXT)];
const GEMMA: &[(&str, &str)] = &[
    ("bos_token", "<bos>"),
    ("eos_token", "<eos>"),
    ("unk_token", "<unk>"),
    ("pad_token", "<pad>"),
    ("mask_token", "<mask>"),
];

const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Class {
    /// Returns the class called `name`, for this `tokenizer.json`.
    pub(super) fn of(name: &str, file: &Value) -> Class {
        let class = match name.strip_suffix("Fast").unwrap_or(name) {
            // transformers checks for this word, too, since Llama 3's files name the class of Llama 2.
            "LlamaTokenizer" if !mentions_byte_level(file) => Class::Llama,
            "CodeLlamaTokenizer" => Class::CodeLlama,
            "GPT2Tokenizer" => Class::Gpt2,
            "GPTNeoXTokenizer" => Class::GptNeoX,
            "Qwen2Tokenizer" => Class::Qwen2,
            "GemmaTokenizer" => Class::Gemma,
            _ => Class::File,
        };
        if file["model"]["merges"].is_array() { class } else { Class::File }
    }

    /// The default special tokens, for those that no file names.
    pub(super) fn special_tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Class::File => &[],
            Class::Llama => LLAMA,
            Class::CodeLlama => CODE_LLAMA,
            Class::Gpt2 => GPT2,
            Class::GptNeoX => GPT_NEOX,
            Class::Qwen2 => QWEN2,
            Class::Gemma => GEMMA,
        }
    }

    /// Changes `tokenizer.json` as the class does. The added tokens are removed, since all are added again later.
    /// `config` is `tokenizer_config.json`, and `unk` the unknown token.
    pub(super) fn rebuild(self, file: &mut Value, config: &Map<String, Value>, unk: Option<&str>) {
        if self == Class::File {
            return;
        }
        let prefix_space = config.get("add_prefix_space").and_then(Value::as_bool);
        let llama = matches!(self, Class::Llama | Class::CodeLlama);
        let [vocab, merges] = ["vocab", "merges"].map(|part| file["model"][part].take());
        let byte_fallback = llama || self == Class::Gemma;
        file["model"] = json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": byte_fallback, "byte_fallback": byte_fallback,
            "ignore_merges": false, "vocab": vocab, "merges": merges,
        });
        if matches!(self, Class::Gemma | Class::CodeLlama) {
            file["model"]["unk_token"] = unk.into();
        }
        file["added_tokens"] = json!([]);
        file["normalizer"] = match self {
            Class::GptNeoX | Class::Qwen2 => json!({"type": "NFC"}),
            Class::Gemma => json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
            _ => Value::Null,
        };
        let byte_level = |use_regex: bool| {
            let prefix_space = prefix_space.unwrap_or(false);
            json!({"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true, "use_regex": use_regex})
        };
        file["pre_tokenizer"] = match self {
            Class::Llama | Class::CodeLlama => {
                let legacy =
                    self == Class::Llama && config.get("legacy").is_some_and(|value| value == &json!(true));
                let scheme = match (prefix_space.unwrap_or(true), legacy) {
                    (false, _) => "never",
                    (true, true) => "always",
                    (true, false) => "first",
                };
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false})
            }
            Class::Gemma => {
                json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false})
            }
            Class::Qwen2 => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": false},
                byte_level(false),
            ]}),
            _ => byte_level(true),
        };
        file["decoder"] = if byte_fallback {
            let mut decoders = vec![
                json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                json!({"type": "ByteFallback"}),
                json!({"type": "Fuse"}),
            ];
            if self == Class::CodeLlama || self == Class::Llama && prefix_space.unwrap_or(true) {
                decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
            }
            json!({"type": "Sequence", "decoders": decoders})
        } else {
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})
        };
    }
}

fn mentions_byte_level(value: &Value) -> bool {
    match value {
        Value::String(text) => text == "ByteLevel",
        Value::Array(list) => list.iter().any(mentions_byte_level),
        Value::Object(map) => map.iter().any(|(key, value)| key == "ByteLevel" || mentions_byte_level(value)),
        _ => false,
    }
}
