//! A response's text as its tokens come.

use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::Result;

/// What has been shown of a response that has not ended.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    prompt: &'a [u32],
    stop: &'a StopMatcher,
    shown: String,
}

impl<'a> TextStream<'a> {
    /// Of a response to this prompt that one of these strings may stop.
    pub fn new(tokenizer: &'a Tokenizer, prompt: &'a [u32], stop: &'a StopMatcher) -> TextStream<'a> {
        TextStream { tokenizer, prompt, stop, shown: String::new() }
    }

    /// The text that the response's tokens so far add to what was shown: whole characters, and none that a stop string may begin
    /// with.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode_after`].
    pub fn push(&mut self, token_ids: &[u32]) -> Result<String> {
        let text = self.tokenizer.decode_after(self.prompt, token_ids, true)?;
        // The bytes of a character that is not whole yet.
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let safe = &whole[..self.stop.safe_length(whole)];
        Ok(self.advance(safe).unwrap_or_default())
    }

    /// What is left of the whole text of the response, now that it has ended.
    pub fn finish(mut self, text: &str) -> String {
        // Tokens may change the text of those before them, but for what was shown already.
        self.advance(text).unwrap_or_default()
    }

    fn advance(&mut self, text: &str) -> Option<String> {
        let new = text.strip_prefix(self.shown.as_str())?.to_owned();
        self.shown.push_str(&new);
        Some(new)
    }
}
