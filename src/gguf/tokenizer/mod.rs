//! Tokenizers in GGUF.

mod pieces;
mod read;
mod words;
pub(super) mod write;

pub(super) use read::GgufTokenizer;

/// Names of metadata entries.
pub(super) mod key {
    /// The type of tokenizer.
    pub const MODEL: &str = "tokenizer.ggml.model";
    /// The pre-tokenizer of a byte-level tokenizer, which divides a text into words.
    pub const WORDS: &str = "tokenizer.ggml.pre";
    pub const TOKENS: &str = "tokenizer.ggml.tokens";
    pub const SCORES: &str = "tokenizer.ggml.scores";
    /// See [`super::Kind`].
    pub const KINDS: &str = "tokenizer.ggml.token_type";
    pub const MERGES: &str = "tokenizer.ggml.merges";
    pub const ADDS_BOS: &str = "tokenizer.ggml.add_bos_token";
    pub const ADDS_EOS: &str = "tokenizer.ggml.add_eos_token";
    pub const SPACE_FIRST: &str = "tokenizer.ggml.add_space_prefix";
    pub const TEMPLATE: &str = "tokenizer.chat_template";
    /// The names of templates other than the default one.
    pub const TEMPLATES: &str = "tokenizer.chat_templates";
    /// The content of a `tokenizer.json`; few writers include it.
    pub const WHOLE: &str = "tokenizer.huggingface.json";
}

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

impl Kind {
    fn of(id: u64) -> Kind {
        use Kind::*;
        [Normal, Unknown, Control, UserDefined, Unused, Byte]
            .into_iter()
            .find(|kind| *kind as u64 == id)
            .unwrap_or(Normal)
    }
}
