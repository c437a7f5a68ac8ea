//! `oaif chat`.

use std::io::{self, BufRead, IsTerminal, Write};

use super::{print_as_it_comes, warn_of};
use crate::Wait;
use crate::cli::args::ChatPlan;
use crate::cli::console::say;
use crate::data::rows::{Conversation, Message, Text};
use crate::data::tokenizer::StopMatcher;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Generator, Request};
use crate::gpu::{Arena, Gpu};
use crate::train::Policy;

/// Tokens of a conversation that a generator has room for at first; it is made anew where a conversation grows beyond.
const ROOM: usize = 512;

const HELP: &str =
    "a line is what you say; /new begins another conversation, /exit or the end of the input ends";

pub fn run(plan: ChatPlan) -> Result<()> {
    let gpu = plan.gpu.open()?;
    let policy = Policy::frozen(&gpu, &plan.model, plan.adapter.as_deref(), plan.base_dtype).wait()?;
    warn_of(&policy.model);
    if policy.template.is_none() {
        let why = "has no chat template, so that it cannot be talked with: continue texts with oaif generate --prompt";
        return Err(Error::file(&plan.model, why));
    }
    let asked = io::stdin().is_terminal();
    if asked {
        say(HELP);
    }
    let mut chat = Chat { gpu, policy, plan, messages: Vec::new(), answers: 0, generator: None };
    chat.begin();
    for line in lines(asked) {
        match line?.trim() {
            "" => {}
            "/exit" | "/quit" => break,
            "/new" => chat.begin(),
            command if command.starts_with('/') => say(format_args!("oaif: {command} is no command: {HELP}")),
            text => chat.answer(text)?,
        }
    }
    Ok(())
}

/// The lines of standard input, asked for where somebody types them.
fn lines(asked: bool) -> impl Iterator<Item = Result<String>> {
    let mut input = io::stdin().lock();
    std::iter::from_fn(move || {
        if asked {
            // A prompt that cannot be written is no reason to stop.
            let _ = write!(io::stderr().lock(), "> ").and_then(|()| io::stderr().flush());
        }
        let mut line = String::new();
        match input.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(line)),
            Err(e) => Some(Err(Error::io("read", "standard input")(e))),
        }
    })
}

/// A conversation.
struct Chat {
    gpu: Gpu,
    policy: Policy,
    plan: ChatPlan,
    messages: Vec<Message>,
    /// How many were given, in all conversations: no two are drawn alike.
    answers: u32,
    /// With the longest prompt that it reads.
    generator: Option<(Generator, usize)>,
}

impl Chat {
    fn begin(&mut self) {
        self.messages = self.plan.system.iter().map(|text| Message::new("system", text)).collect();
    }

    /// Says a text and prints the answer. What the template or the context has no place for is told, and not said.
    fn answer(&mut self, text: &str) -> Result<()> {
        self.messages.push(Message::new("user", text));
        let conversation = Conversation { messages: self.messages.clone(), ..Conversation::default() };
        let context = self.policy.model.architecture().context;
        let prompt = match self.policy.encoder().prompt(&Text::Chat(conversation)) {
            Ok(prompt) if prompt.len() < context => prompt,
            refused => {
                self.messages.pop();
                match refused {
                    Ok(prompt) => say(format_args!(
                        "oaif: the conversation has {} tokens, and the model reads {} at most: /new begins another",
                        prompt.len(),
                        context - 1
                    )),
                    Err(e) => say(format_args!("oaif: {e}")),
                }
                return Ok(());
            }
        };
        self.make_room(prompt.len(), context)?;
        let (generator, _) = self.generator.as_ref().expect("made above");
        let request = Request { prompt, samples: 1, first_sequence: self.answers };
        self.answers = self.answers.wrapping_add(1) & (u32::MAX >> 1);
        let stop = StopMatcher::new(self.plan.sampling.stop.clone());
        let answer = print_as_it_comes(generator, &self.policy.tokenizer, &request, &stop, self.plan.seed)?;
        self.messages.push(Message::new("assistant", answer.text.trim_start()));
        Ok(())
    }

    /// A generator that reads prompts of so many tokens.
    fn make_room(&mut self, tokens: usize, context: usize) -> Result<()> {
        if self.generator.as_ref().is_some_and(|(_, room)| *room >= tokens) {
            return Ok(());
        }
        let room = tokens.max(ROOM).next_power_of_two().min(context - 1);
        let options = GenerateOptions {
            sampling: self.plan.sampling.params,
            max_new_tokens: self.plan.sampling.max_new_tokens.min(context - 1),
            max_prompt_tokens: room,
            slots: 1,
            samples_per_prompt: 1,
            eos: self.policy.tokenizer.eos_ids().to_vec(),
        };
        // The memory of the one before is free for it.
        self.generator = None;
        let generator = Generator::new(&self.gpu, &self.policy.model, options, &Arena::new()).wait()?;
        self.generator = Some((generator.keeping_prompts(), room));
        Ok(())
    }
}
