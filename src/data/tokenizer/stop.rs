//! Stop strings.

use super::Tokenizer;
use crate::error::{Error, Result};

/// Finds stop strings in generated text.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
}

impl StopMatcher {
    /// Creates a matcher for the earliest of `stops`; empty strings are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> StopMatcher {
        StopMatcher { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect() }
    }

    /// The length in bytes of the beginning of a text that cannot be part of a later stop string. The text has no stop
    /// string yet.
    pub(crate) fn safe_length(&self, text: &str) -> usize {
        let may_begin = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&text[*at..]));
        text.char_indices().map(|(at, _)| at).find(may_begin).unwrap_or(text.len())
    }

    /// Returns the generated text before the earliest stop string, without special tokens, or `None` if there is none.
    /// `before` are the prompt's ids, `ids` all generated ids so far. The whole is decoded each time: the text of a
    /// token can depend on its neighbours (bytes of one character, a stripped space), and decoding is cheap compared to
    /// a step of the model.
    pub fn cut(&self, tokenizer: &Tokenizer, before: &[u32], ids: &[u32]) -> Result<Option<String>> {
        let first = |text: &str| self.stops.iter().filter_map(|stop| text.find(stop)).min();
        // Special tokens are included, since a stop string may be one.
        let stopped =
            |ids: &[u32]| Ok::<_, Error>(first(&tokenizer.decode_after(before, ids, false)?).is_some());
        if self.stops.is_empty() || !stopped(ids)? {
            return Ok(None);
        }
        let mut text = tokenizer.decode_after(before, ids, true)?;
        if let Some(end) = first(&text) {
            text.truncate(end);
            return Ok(Some(text));
        }
        let mut end = ids.len() - 1;
        while stopped(&ids[..end])? {
            end -= 1;
        }
        tokenizer.decode_after(before, &ids[..end], true).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_which_a_stop_string_may_begin_is_not_safe() {
        let stop = StopMatcher::new(["\nUser".to_owned(), "é!".to_owned()]);
        for (text, safe) in
            [("", 0), ("abc", 3), ("abc\n", 3), ("abc\nUs", 3), ("abc\nXs", 6), ("caf\u{e9}", 3), ("é?", 3)]
        {
            assert_eq!(stop.safe_length(text), safe, "{text:?}");
        }
        assert_eq!(StopMatcher::default().safe_length("abc\n"), 4);
    }
}
