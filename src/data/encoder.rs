//! Encoding of texts: a prompt and its completion are encoded together.

use super::chat::{ChatTemplate, render_prompt, render_whole};
use super::packing::Tree;
use super::rows::{Place, Text};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// Encodes texts as one model reads them.
///
/// A prompt and its completion are encoded together. If the ids of the whole begin with those of the prompt alone, the
/// rest are the completion's. If they do not (a token spans the boundary, or a template renders a prompt differently
/// when its response follows), the completion's ids are those after the longest common beginning.
pub struct Encoder<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The model's chat template, if it has one.
    pub template: Option<&'a ChatTemplate>,
}

/// A prompt with its completions, encoded together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The prompt and each completion. A completion may be empty.
    pub tree: Tree,
    /// The number of tokens at the end of the separately encoded prompt that the whole does not have; 0 if the whole
    /// begins with all of them.
    pub cut: usize,
}

impl Encoder<'_> {
    /// Encodes a prompt by itself: a string with the tokenizer's special tokens, a conversation as its template renders
    /// it.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty prompt, an exception of the template, and a token that the model does not have.
    pub fn prompt(&self, prompt: &Text) -> Result<Vec<u32>> {
        let rendered = render_prompt(prompt, self.template)?;
        let ids = match prompt {
            Text::Plain(_) => self.tokenizer.encode_beginning(&rendered)?,
            Text::Chat(_) => self.tokenizer.encode_plain(&rendered)?,
        };
        match ids.is_empty() {
            true => {
                Err(Error::config("prompt", "is empty, and the tokenizer has no beginning-of-sequence token"))
            }
            false => Ok(ids),
        }
    }

    /// Encodes a prompt with completions. With `append_eos`, the end-of-sequence token is appended to each completion
    /// that is a string; the end of a conversation depends on its template.
    ///
    /// # Errors
    /// As [`Encoder::prompt`]; [`Error::Config`] if the first token of the whole belongs to a completion.
    pub fn encode(&self, prompt: &Text, completions: &[&Text], append_eos: bool) -> Result<Encoded> {
        let alone = self.prompt(prompt)?;
        let whole = |completion: &&Text| self.whole(Some(prompt), completion, append_eos);
        let wholes = completions.iter().map(whole).collect::<Result<Vec<_>>>()?;
        let common = |whole: &Vec<u32>| alone.iter().zip(whole).take_while(|(a, b)| a == b).count();
        let shared = wholes.iter().map(common).min().unwrap_or(alone.len());
        if shared == 0 {
            let why = "ends within the first token of prompt and completion together, and the tokenizer has no \
                       beginning-of-sequence token: lengthen the prompt";
            return Err(Error::config("prompt", why));
        }
        let responses = wholes.into_iter().map(|mut ids| ids.split_off(shared)).collect();
        let cut = alone.len() - shared;
        Ok(Encoded { tree: Tree { prompt: alone[..shared].to_vec(), responses }, cut })
    }

    /// Encodes a text without a prompt; its first token takes the place of one. `append_eos` as in [`Encoder::encode`].
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
            let why =
                "has no end-of-sequence token to append: set one in tokenizer_config.json, or append none";
            return Err(Error::config("tokenizer", why));
        };
        // Appended as text, as in TRL, since the tokenizer defines how a token affects the space before it.
        if !text.ends_with(written) {
            text.push_str(written);
        }
        let mut ids = self.ids(completion, &text)?;
        // The tokenizer's post-processor may append another one.
        if ids.ends_with(&[eos, eos]) {
            ids.pop();
        }
        Ok(ids)
    }

    /// Encodes rendered text. A template has already written the special tokens.
    fn ids(&self, of: &Text, rendered: &str) -> Result<Vec<u32>> {
        match of {
            Text::Plain(_) => self.tokenizer.encode(rendered),
            Text::Chat(_) => self.tokenizer.encode_plain(rendered),
        }
    }
}

/// Adds a row's place to an error about its text.
pub fn at(place: &Place) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Config { what, why } => place.error(format!("{what}: {why}")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::data::rows::{Conversation, Message};
    use crate::files::{shared, write_atomic};

    fn kind(name: &str) -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers");
        Tokenizer::load(&folder.join(name)).unwrap()
    }

    fn text(text: &str) -> Text {
        Text::Plain(text.to_owned())
    }

    fn chat(messages: &[(&str, &str)]) -> Text {
        let messages = messages.iter().map(|(role, content)| Message::new(role, content)).collect();
        Text::Chat(Conversation { messages, ..Conversation::default() })
    }

    /// Encodes two texts together.
    fn joined(encoder: &Encoder, prompt: &str, completion: &str, append_eos: bool) -> Encoded {
        encoder.encode(&text(prompt), &[&text(completion)], append_eos).unwrap()
    }

    #[test]
    fn a_completion_has_the_ids_that_follow_its_prompt() {
        let Some(dir) = shared("models/stories260K") else { return };
        let tokenizer = Tokenizer::load_for(&dir, 512).unwrap();
        let encoder = Encoder { tokenizer: &tokenizer, template: None };
        // Expected: transformers 5.24 (../shared/cases/boundary-text).
        for (prompt, completion, ids) in [
            ("Once upon a time", ", there was a", &[432, 383, 286, 261][..]),
            ("Once upon a time", " there was a", &[383, 286, 261]),
            ("2 + 2 = (", "4)", &[484, 488]),
        ] {
            let Encoded { tree, cut } = joined(&encoder, prompt, completion, false);
            assert_eq!((tree.responses, cut), (vec![ids.to_vec()], 0), "{prompt:?} + {completion:?}");
            assert_eq!(tree.prompt, tokenizer.encode(prompt).unwrap());
        }
    }

    #[test]
    fn a_token_across_the_boundary_belongs_to_the_completion_and_is_counted() {
        let tokenizer = kind("byte-fallback");
        let encoder = Encoder { tokenizer: &tokenizer, template: None };
        let [alone, whole] = ["Once upo", "Once upon a time"].map(|t| tokenizer.encode(t).unwrap());
        let Encoded { tree, cut } = joined(&encoder, "Once upo", "n a time", false);
        assert_eq!([&tree.prompt[..], &tree.responses[0]].concat(), whole);
        assert!(cut > 0 && tree.prompt == alone[..alone.len() - cut], "{cut} of {alone:?}");
    }

    #[test]
    fn a_completion_that_changes_the_first_token_is_an_error() {
        let tokenizer = kind("byte-level");
        let encoder = Encoder { tokenizer: &tokenizer, template: None };
        let error = encoder.encode(&text("i"), &[&text("n")], false);
        assert_eq!(tokenizer.encode("in").unwrap().len(), 1);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("prompt: ends within the first token") && error.contains("lengthen"),
            "{error}"
        );
        let error = encoder.prompt(&text("")).unwrap_err().to_string();
        assert!(error.contains("prompt: is empty"), "{error}");
        // A beginning-of-sequence token always precedes the completion.
        let begun = kind("byte-fallback");
        let encoder = Encoder { tokenizer: &begun, template: None };
        assert_eq!(joined(&encoder, "", "fox", false).tree.prompt, [1]);
    }

    #[test]
    fn two_completions_share_the_shorter_of_their_prompts() {
        let tokenizer = kind("byte-fallback");
        let encoder = Encoder { tokenizer: &tokenizer, template: None };
        let (prompt, plain, merged) = ("Once upo", text("!"), text("n"));
        let pair = encoder.encode(&text(prompt), &[&plain, &merged], false).unwrap();
        let [one, two] = [&plain, &merged].map(|c| encoder.encode(&text(prompt), &[c], false).unwrap());
        assert!(one.cut < two.cut && pair.cut == two.cut, "{one:?} {two:?}");
        let wholes = ["Once upo!", "Once upon"].map(|t| tokenizer.encode(t).unwrap());
        for (response, whole) in pair.tree.responses.iter().zip(wholes) {
            assert_eq!([&pair.tree.prompt[..], response].concat(), whole);
        }
    }

    #[test]
    fn an_end_of_sequence_token_is_appended_as_text_and_once() {
        for name in ["byte-fallback", "byte-level", "both-ends", "flags", "unigram"] {
            let tokenizer = kind(name);
            let encoder = Encoder { tokenizer: &tokenizer, template: None };
            let eos = tokenizer.eos().unwrap();
            let ended = format!("a fox{}", tokenizer.eos_text().unwrap());
            for completion in ["a fox", &ended] {
                let response = joined(&encoder, "Once ", completion, true).tree.responses.remove(0);
                assert_eq!(response.iter().filter(|id| **id == eos).count(), 1, "{name} {completion}");
                assert_eq!(response.last(), Some(&eos), "{name} {completion}");
            }
            let tree = encoder.text(&text("a fox"), true).unwrap();
            assert_eq!((tree.prompt.len(), tree.responses[0].last()), (1, Some(&eos)), "{name}");
        }
        let none = Encoder { tokenizer: &kind("word-level"), template: None };
        assert!(joined(&none, "a", " b", true).tree.responses[0].ends_with(&[2]));
    }

    #[test]
    fn a_prompt_is_encoded_without_a_final_end_of_sequence_token() {
        let tokenizer = kind("both-ends");
        let encoder = Encoder { tokenizer: &tokenizer, template: None };
        let eos = tokenizer.eos().unwrap();
        let prompt = encoder.prompt(&text("Once upon")).unwrap();
        assert_eq!([&prompt[..], &[eos]].concat(), tokenizer.encode("Once upon").unwrap());
        let Encoded { tree, cut } = joined(&encoder, "Once upon", " a time", false);
        assert_eq!((tree.prompt, cut, tree.responses[0].last()), (prompt, 0, Some(&eos)));
    }

    #[test]
    fn a_conversation_ends_as_its_template_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let template = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}\n{% endfor %}";
        write_atomic(&dir.path().join("chat_template.jinja"), template.as_bytes()).unwrap();
        write_atomic(&dir.path().join("tokenizer_config.json"), br#"{"eos_token": "</s>"}"#).unwrap();
        let template = ChatTemplate::load(dir.path()).unwrap();
        let tokenizer = kind("byte-fallback");
        let encoder = Encoder { tokenizer: &tokenizer, template: template.as_ref() };
        let (prompt, answer) = (chat(&[("user", "hi")]), chat(&[("assistant", "yo")]));
        let [ended, plain] = [true, false].map(|eos| encoder.encode(&prompt, &[&answer], eos).unwrap());
        assert_eq!(ended, plain);
        let response = &ended.tree.responses[0];
        assert_eq!(response.iter().filter(|id| **id == 2).count(), 1, "{response:?}");
        assert_ne!(response.last(), Some(&2), "a newline follows");
    }

    #[test]
    fn an_error_about_a_text_names_its_row() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers/flags");
        let tokenizer = Tokenizer::load_for(&folder, 321).unwrap();
        let encoder = Encoder { tokenizer: &tokenizer, template: None };
        let place = Place { file: Some(Arc::from(Path::new("rows.jsonl"))), line: 7 };
        let error = encoder.encode(&text("a"), &[&text(" <left>")], false).map_err(at(&place)).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("rows.jsonl:7: text: has the token \"<left>\" with id 321"), "{error}");
        assert!(error.contains("ids end at 320: remove the token"), "{error}");
    }
}
