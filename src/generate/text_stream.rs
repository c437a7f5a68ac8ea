//! The text of a response while its tokens are generated.

use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::Result;

/// The text that was returned so far of an unfinished response.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    prompt: &'a [u32],
    stop: &'a StopMatcher,
    shown: String,
}

impl<'a> TextStream<'a> {
    /// Creates the stream for a response to this prompt, with these stop strings.
    pub fn new(tokenizer: &'a Tokenizer, prompt: &'a [u32], stop: &'a StopMatcher) -> TextStream<'a> {
        TextStream { tokenizer, prompt, stop, shown: String::new() }
    }

    /// Returns the text that the response's tokens so far add to the text returned before. It has only complete
    /// characters, and no beginning of a possible stop string.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode_after`].
    pub fn push(&mut self, token_ids: &[u32]) -> Result<String> {
        let text = self.tokenizer.decode_after(self.prompt, token_ids, true)?;
        // Removes the bytes of an incomplete character.
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let safe = &whole[..self.stop.safe_length(whole)];
        Ok(self.advance(safe).unwrap_or_default())
    }

    /// Returns the rest of the text of a response that has ended.
    pub fn finish(mut self, text: &str) -> String {
        // Tokens may change the text of those before them; text that was already returned cannot change.
        self.advance(text).unwrap_or_default()
    }

    fn advance(&mut self, text: &str) -> Option<String> {
        let new = text.strip_prefix(self.shown.as_str())?.to_owned();
        self.shown.push_str(&new);
        Some(new)
    }
}
