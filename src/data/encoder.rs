//! Texts to token ids: a prompt and what follows it, encoded together.

use super::chat::{ChatTemplate, render_prompt, render_whole};
use super::packing::Tree;
use super::rows::{Place, Text};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// Texts to token ids, as one model reads them.
///
/// A prompt and its completion are encoded together, as they are read: the completion's tokens are those behind the
/// prompt's own, where the whole begins with these. Where it does not (a token spans the border, or a template renders
/// a prompt differently once its answer follows), they are those behind the longest common beginning.
pub struct Encoder<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The model's chat template, if it has one.
    pub template: Option<&'a ChatTemplate>,
}

/// A prompt with its completions, encoded together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The prompt and each completion. A completion may have no token.
    pub tree: Tree,
    /// How many of the prompt's own last tokens the whole does not have: 0, where it begins with the prompt's.
    pub cut: usize,
}

impl Encoder<'_> {
    /// A prompt by itself: a string with the tokenizer's special tokens, a conversation as its template renders it.
    ///
    /// # Errors
    /// [`Error::Config`] for a prompt without a token, for one that the template refuses, and for a token that the
    /// model does not have.
    pub fn prompt(&self, prompt: &Text) -> Result<Vec<u32>> {
        let ids = self.ids(prompt, &render_prompt(prompt, self.template)?)?;
        match ids.is_empty() {
            true => {
                Err(Error::config("prompt", "is empty, and the tokenizer has no token to begin a text with"))
            }
            false => Ok(ids),
        }
    }

    /// A prompt with completions that follow it, each ended by the end-of-sequence token where `append_eos` says so
    /// and it is a string: a conversation ends as its template ends it.
    ///
    /// # Errors
    /// As [`Encoder::prompt`]; [`Error::Config`] where the first token of the whole belongs to a completion.
    pub fn encode(&self, prompt: &Text, completions: &[&Text], append_eos: bool) -> Result<Encoded> {
        let alone = self.prompt(prompt)?;
        let whole = |completion: &&Text| self.whole(Some(prompt), completion, append_eos);
        let wholes = completions.iter().map(whole).collect::<Result<Vec<_>>>()?;
        let common = |whole: &Vec<u32>| alone.iter().zip(whole).take_while(|(a, b)| a == b).count();
        let shared = wholes.iter().map(common).min().unwrap_or(alone.len());
        if shared == 0 {
            let why = "ends within the first token of prompt and completion together, and the tokenizer has no token \
                       to begin a text with: lengthen the prompt";
            return Err(Error::config("prompt", why));
        }
        let responses = wholes.into_iter().map(|mut ids| ids.split_off(shared)).collect();
        let cut = alone.len() - shared;
        Ok(Encoded { tree: Tree { prompt: alone[..shared].to_vec(), responses }, cut })
    }

    /// A text without a prompt: its first token stands for one. `append_eos` as in [`Encoder::encode`].
    pub fn text(&self, text: &Text, append_eos: bool) -> Result<Tree> {
        let mut ids = self.whole(None, text, append_eos)?;
        let rest = ids.split_off(1.min(ids.len()));
        Ok(Tree { prompt: ids, responses: vec![rest] })
    }

    fn whole(&self, prompt: Option<&Text>, completion: &Text, append_eos: bool) -> Result<Vec<u32>> {
        let mut text = render_whole(prompt, completion, self.template)?;
        if !append_eos || matches!(completion, Text::Chat(_)) {
            return self.ids(completion, &text);
        }
        let Some((eos, written)) = self.tokenizer.eos().zip(self.tokenizer.eos_text()) else {
            let why = "there is no end-of-sequence token to append: name one in tokenizer_config.json, or append none";
            return Err(Error::config("tokenizer", why));
        };
        // As text, as TRL does it: the tokenizer says what a token does to the space before it.
        if !text.ends_with(written) {
            text.push_str(written);
        }
        let mut ids = self.ids(completion, &text)?;
        // A tokenizer may end every text with one more.
        if ids.ends_with(&[eos, eos]) {
            ids.pop();
        }
        Ok(ids)
    }

    /// A template has written the special tokens itself.
    fn ids(&self, of: &Text, rendered: &str) -> Result<Vec<u32>> {
        match of {
            Text::Plain(_) => self.tokenizer.encode(rendered),
            Text::Chat(_) => self.tokenizer.encode_plain(rendered),
        }
    }
}

/// An error about a row's text, with the row's place.
pub fn at(place: &Place) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Config { what, why } => place.error(format!("{what}: {why}")),
        other => other,
    }
}
