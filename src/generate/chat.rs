//! Conversations with a model.

use std::sync::Arc;

use super::{AnswerStream, GenerateOptions, Generator, Request, Response};
use crate::data::chat::ChatTemplate;
use crate::data::encoder::Encoder;
use crate::data::rows::{Message, Text};
use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::{Error, Result};
use crate::gpu::Arena;
use crate::model::Model;

/// The initial room for a conversation, in tokens; a longer conversation needs a new cache.
const ROOM: usize = 512;

/// A conversation whose cache is kept, so that only the new part of each turn is read. The model may be trained in the
/// meantime; the next response then uses the new weights.
pub struct Chat {
    model: Model,
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    options: GenerateOptions,
    stop: StopMatcher,
    seed: u32,
    messages: Vec<Message>,
    /// The number of responses that were started in all conversations. It gives each of them its own random draws.
    answers: u32,
    /// The generator, and the longest prompt that it can read.
    generator: Option<(Generator, usize)>,
    /// The current request.
    request: Vec<Request>,
}

impl Chat {
    /// Creates a conversation with a chat template. Of the options, `max_new_tokens`, `sampling` and `eos` are used.
    pub fn new(
        model: Model,
        tokenizer: Arc<Tokenizer>,
        template: Arc<ChatTemplate>,
        options: GenerateOptions,
    ) -> Chat {
        Chat {
            model,
            tokenizer,
            template,
            options,
            stop: StopMatcher::default(),
            seed: 0,
            messages: Vec::new(),
            answers: 0,
            generator: None,
            request: Vec::new(),
        }
    }

    /// Ends responses before these strings.
    pub fn stopping_at(self, stop: StopMatcher) -> Chat {
        Chat { stop, ..self }
    }

    /// Sets the seed of sampling; the default is 0.
    pub fn with_seed(self, seed: u32) -> Chat {
        Chat { seed, ..self }
    }

    /// Starts a new conversation, with or without a system message.
    pub fn begin(&mut self, system: Option<&str>) {
        self.messages = system.iter().map(|text| Message::new("system", text)).collect();
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Sends a user message; the response is returned in parts. On an error the message is not added to the
    /// conversation.
    ///
    /// # Errors
    /// [`Error::Config`] for an exception of the template; [`Error::TooLong`] if the conversation is longer than the
    /// model's context; memory errors and device errors.
    pub async fn say(&mut self, text: &str) -> Result<ChatAnswer<'_>> {
        let said = Message::new("user", text);
        let conversation: Vec<Message> = self.messages.iter().chain([&said]).cloned().collect();
        let encoder = Encoder { tokenizer: &self.tokenizer, template: Some(&self.template) };
        let prompt = encoder.prompt(&Text::from(conversation))?;
        let limit = self.model.context() - 1;
        if prompt.len() > limit {
            let what = "the conversation".to_owned();
            return Err(Error::TooLong { what, tokens: prompt.len(), limit });
        }
        self.make_room(prompt.len()).await?;
        self.request = vec![Request { prompt, samples: 1, first_sequence: self.answers }];
        self.answers = self.answers.wrapping_add(1) & (u32::MAX >> 1);
        let Chat { generator, tokenizer, request, stop, seed, messages, .. } = self;
        let (generator, _) = generator.as_ref().expect("made above");
        let stream = generator.stream(tokenizer, request, stop, *seed).await?;
        messages.push(said);
        Ok(ChatAnswer { stream, messages, text: String::new(), response: None })
    }

    /// Creates a generator that can read prompts of this number of tokens, unless there is one.
    async fn make_room(&mut self, tokens: usize) -> Result<()> {
        if self.generator.as_ref().is_some_and(|(_, room)| *room >= tokens) {
            return Ok(());
        }
        let most = self.model.context() - 1;
        let room = tokens.max(ROOM).next_power_of_two().min(most);
        let options = GenerateOptions {
            max_new_tokens: self.options.max_new_tokens.min(most),
            max_prompt_tokens: room,
            slots: 1,
            samples_per_prompt: 1,
            ..self.options.clone()
        };
        // The memory of the previous generator is released first.
        self.generator = None;
        let generator = Generator::new(self.model.gpu(), &self.model, options, &Arena::new()).await?;
        self.generator = Some((generator.keeping_prompts(), room));
        Ok(())
    }
}

/// The response of a [`Chat`] in progress. Dropping it before its end stops it: its text so far is added to the
/// conversation; if there is none, the user's message is removed, too.
pub struct ChatAnswer<'c> {
    stream: AnswerStream<'c>,
    messages: &'c mut Vec<Message>,
    text: String,
    response: Option<Response>,
}

impl ChatAnswer<'_> {
    /// Returns the next part of the response's text, or `None` at its end. Its future may be dropped and called again.
    ///
    /// # Errors
    /// As [`AnswerStream::next`].
    pub async fn next(&mut self) -> Result<Option<String>> {
        let Some(part) = self.stream.next().await? else { return Ok(None) };
        self.text.push_str(&part.text);
        self.response = part.response;
        Ok(Some(part.text))
    }

    /// The whole response, after its end.
    pub fn response(&self) -> Option<&Response> {
        self.response.as_ref()
    }
}

impl Drop for ChatAnswer<'_> {
    fn drop(&mut self) {
        match self.text.is_empty() && self.response.is_none() {
            true => drop(self.messages.pop()),
            false => self.messages.push(Message::new("assistant", self.text.trim_start())),
        }
    }
}
