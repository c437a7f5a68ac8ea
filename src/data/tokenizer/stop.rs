//! Stop strings.

use super::Tokenizer;
use crate::error::Result;

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
