//! The thread that answers what is typed, by the model as it is at that moment: it shares the learner's weights.

use std::path::Path;
use std::sync::mpsc::Receiver;

use oaif::Wait;
use oaif::unstable::data::rows::{Conversation, Message, Text};
use oaif::unstable::data::tokenizer::StopMatcher;
use oaif::unstable::generate::{GenerateOptions, Generator, Request, SamplingParams};
use oaif::unstable::gpu::Arena;
use oaif::unstable::model::Model;
use oaif::unstable::train::Policy;

use crate::shared::{Exchange, Shared};

const MAX_NEW_TOKENS: usize = 96;
const MAX_PROMPT_TOKENS: usize = 512;

/// Answers prompts until nobody can send any more.
///
/// # Errors
/// Where the model cannot be used at all. What is wrong with a single prompt is told in the window.
pub fn serve(model: Model, dir: &Path, prompts: &Receiver<String>, shared: &Shared) -> oaif::Result<()> {
    // The same weights, with a tokenizer of this thread's own.
    let policy = Policy::with_model(model, dir)?;
    let context = policy.model.architecture().context;
    let options = GenerateOptions::default().sampling(SamplingParams::default().temperature(0.8)).max_new_tokens(MAX_NEW_TOKENS.min(context / 2)).max_prompt_tokens(MAX_PROMPT_TOKENS.min(context / 2)).slots(1).samples_per_prompt(1).eos(policy.tokenizer.eos_ids().to_vec());
    let generator = Generator::new(policy.model.gpu(), &policy.model, options, &Arena::new()).wait()?;
    shared.tell(|told| told.chat_ready = true);
    for (number, prompt) in prompts.iter().enumerate() {
        let exchange = Exchange { prompt: prompt.clone(), answer: String::new(), done: false };
        shared.tell(|told| told.chat.push(exchange));
        if let Err(error) = answer(&policy, &generator, &prompt, number as u32, shared) {
            shared.error(error);
        }
        shared.tell(|told| told.chat.iter_mut().for_each(|exchange| exchange.done = true));
    }
    Ok(())
}

fn answer(
    policy: &Policy,
    generator: &Generator,
    prompt: &str,
    number: u32,
    shared: &Shared,
) -> oaif::Result<()> {
    let text = match policy.template {
        None => Text::Plain(prompt.to_owned()),
        Some(_) => {
            let messages = vec![Message::new("user", prompt)];
            Text::Chat(Conversation { messages, ..Conversation::default() })
        }
    };
    let request = Request { prompt: policy.encoder().prompt(&text)?, samples: 1, first_sequence: number };
    let (requests, stop) = ([request], StopMatcher::new([]));
    let mut stream = generator.stream(&policy.tokenizer, &requests, &stop, 0).wait()?;
    while let Some(part) = stream.next().wait()? {
        shared.tell(|told| {
            if let Some(exchange) = told.chat.last_mut() {
                exchange.answer.push_str(&part.text);
            }
        });
    }
    Ok(())
}
