//! The thread of the chat. It uses the current weights of the policy, which it shares with the learner.

use std::sync::mpsc::Receiver;

use oaif::Wait;
use oaif::data::{Message, StopMatcher, Text};
use oaif::generate::{Generator, Request, SamplingParams};
use oaif::train::Policy;

use crate::shared::{Exchange, Shared};

const MAX_NEW_TOKENS: usize = 96;

/// Responds to prompts until the sender is dropped.
///
/// # Errors
/// The model cannot be used at all. An error about a single prompt is shown in the window.
pub fn serve(policy: &Policy, prompts: &Receiver<String>, shared: &Shared) -> oaif::Result<()> {
    let warm = SamplingParams::default().temperature(0.8);
    let options = policy.generate_options().sampling(warm).max_new_tokens(MAX_NEW_TOKENS);
    let generator = policy.generator(options).wait()?;
    shared.update(|status| status.chat_ready = true);
    for (number, prompt) in prompts.iter().enumerate() {
        let exchange = Exchange { prompt: prompt.clone(), answer: String::new(), done: false };
        shared.update(|status| status.chat.push(exchange));
        if let Err(error) = answer(policy, &generator, &prompt, number as u32, shared) {
            shared.error(error);
        }
        shared.update(|status| status.chat.iter_mut().for_each(|exchange| exchange.done = true));
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
        None => Text::from(prompt),
        Some(_) => Text::from(vec![Message::new("user", prompt)]),
    };
    let requests = [Request { first_sequence: number, ..policy.request(text)? }];
    let stop = StopMatcher::default();
    let mut stream = generator.stream(&policy.tokenizer, &requests, &stop, 0).wait()?;
    while let Some(part) = stream.next().wait()? {
        shared.update(|status| {
            if let Some(exchange) = status.chat.last_mut() {
                exchange.answer.push_str(&part.text);
            }
        });
    }
    Ok(())
}
