//! A conversation with a model.

use std::sync::Arc;

use super::{AnswerStream, GenerateOptions, Generator, Request, Response};
use crate::data::chat::ChatTemplate;
use crate::data::encoder::Encoder;
use crate::data::rows::{Message, Text};
use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::{Error, Result};
use crate::gpu::Arena;
use crate::model::Model;

/// Tokens of a conversation that there is room for at first; where it grows beyond, its cache is made anew.
const ROOM: usize = 512;

/// A conversation whose cache is kept, so that of each turn only what is new is read. The model may be trained meanwhile:
/// then the next answer is that of the new weights.
pub struct Chat {
    model: Model,
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    options: GenerateOptions,
    stop: StopMatcher,
    seed: u32,
    messages: Vec<Message>,
    /// How many answers were begun, in all conversations: no two are drawn alike.
    answers: u32,
    /// With the longest prompt that it reads.
    generator: Option<(Generator, usize)>,
    /// What is being answered.
    request: Vec<Request>,
}

impl Chat {
    /// A conversation by a chat template; of the options, `max_new_tokens`, `sampling` and `eos` count.
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

    /// Answers end before these strings.
    pub fn stopping_at(self, stop: StopMatcher) -> Chat {
        Chat { stop, ..self }
    }

    /// Draws answers by this seed; 0 otherwise.
    pub fn with_seed(self, seed: u32) -> Chat {
        Chat { seed, ..self }
    }

    /// Begins another conversation, with a system message or without.
    pub fn begin(&mut self, system: Option<&str>) {
        self.messages = system.iter().map(|text| Message::new("system", text)).collect();
    }

    /// What was said so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Says a text; the answer comes part by part. What the template or the context has no place for is not said.
    ///
    /// # Errors
    /// [`Error::Config`] for what the template refuses; [`Error::TooLong`] where the conversation has become longer than the
    /// model's context; memory errors, and what the device reports.
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

    /// A generator that reads prompts of so many tokens.
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
        // The memory of the one before is free for it.
        self.generator = None;
        let generator = Generator::new(self.model.gpu(), &self.model, options, &Arena::new()).await?;
        self.generator = Some((generator.keeping_prompts(), room));
        Ok(())
    }
}

/// The answer that a [`Chat`] is giving. Dropped before its end, it is given up: what has come of it was said, and where
/// nothing has, neither was the text before it.
pub struct ChatAnswer<'c> {
    stream: AnswerStream<'c>,
    messages: &'c mut Vec<Message>,
    text: String,
    response: Option<Response>,
}

impl ChatAnswer<'_> {
    /// What the answer's text goes on with; `None` at its end. Its future may be dropped and asked for again.
    ///
    /// # Errors
    /// As [`AnswerStream::next`].
    pub async fn next(&mut self) -> Result<Option<String>> {
        let Some(part) = self.stream.next().await? else { return Ok(None) };
        self.text.push_str(&part.text);
        self.response = part.response;
        Ok(Some(part.text))
    }

    /// The whole response, at its end.
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
