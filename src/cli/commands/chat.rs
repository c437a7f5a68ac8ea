//! `oaif chat`.

use std::io::{self, BufRead, IsTerminal, Write};

use super::warn_of;
use crate::Wait;
use crate::cli::args::ChatPlan;
use crate::cli::console::{say, warn};
use crate::cli::{print, print_part};
use crate::data::tokenizer::StopMatcher;
use crate::error::{Error, Result};
use crate::generate::Chat;
use crate::train::Policy;

const HELP: &str =
    "type a message; /new starts a new conversation, /exit or the end of the input ends the chat";

pub fn run(plan: ChatPlan) -> Result<()> {
    let gpu = plan.gpu.open()?;
    let policy =
        Policy::frozen(&gpu, &plan.policy.model, plan.policy.adapter.as_deref(), plan.base_dtype).wait()?;
    warn_of(&policy.model);
    if policy.template.is_none() {
        let why =
            "has no chat template, which oaif chat needs: use oaif generate --prompt to continue a text";
        return Err(Error::file(&plan.policy.model, why));
    }
    let in_terminal = io::stdin().is_terminal();
    if in_terminal {
        say(HELP);
    }
    let options = policy.generate_options().sampling(plan.sampling.params);
    let chat = policy.chat(options.max_new_tokens(plan.sampling.max_new_tokens))?;
    let mut chat = chat.stopping_at(StopMatcher::new(plan.sampling.stop)).with_seed(plan.seed);
    let system = plan.system.as_deref();
    chat.begin(system);
    for line in lines(in_terminal) {
        match line?.trim() {
            "" => {}
            "/exit" | "/quit" => break,
            "/new" => chat.begin(system),
            command if command.starts_with('/') => {
                say(format_args!("oaif: {command} is not a command: {HELP}"))
            }
            text => answer(&mut chat, text)?,
        }
    }
    Ok(())
}

/// The lines of standard input, with a prompt in a terminal.
fn lines(in_terminal: bool) -> impl Iterator<Item = Result<String>> {
    let mut input = io::stdin().lock();
    std::iter::from_fn(move || {
        if in_terminal {
            // Errors of writing the prompt are ignored.
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

/// Sends a message and prints the response. A message that the template refuses or that does not fit the context is reported
/// and dropped.
fn answer(chat: &mut Chat, text: &str) -> Result<()> {
    let mut answer = match chat.say(text).wait() {
        Ok(answer) => answer,
        Err(Error::TooLong { tokens, limit, .. }) => {
            warn(format_args!(
                "the conversation has {tokens} tokens, but the model takes at most {limit}: /new starts a new one"
            ));
            return Ok(());
        }
        Err(refused @ (Error::Config { .. } | Error::File { .. })) => {
            warn(refused);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    while let Some(text) = answer.next().wait()? {
        match answer.response() {
            None => print_part(&text)?,
            Some(_) => print(text)?,
        }
    }
    Ok(())
}
