//! `oaif generate`.

use std::io::{self, Read};

use serde_json::json;

use super::{warn_of, write_lines};
use crate::Wait;
use crate::cli::args::{GeneratePlan, Prompts};
use crate::cli::console::Console;
use crate::cli::{print, print_part};
use crate::data::encoder::at;
use crate::data::rows::{Conversation, Message, Prompt, Text, read_prompts};
use crate::data::tokenizer::StopMatcher;
use crate::error::{Error, Result};
use crate::generate::{AnswerStream, GenerateOptions, Request, Response, slots_for};
use crate::train::Policy;

/// Number of characters of a prompt in the heading of its responses.
const HEADING: usize = 60;

pub fn run(plan: GeneratePlan) -> Result<()> {
    let alone = |text| vec![Prompt { prompt: Text::Plain(text), reference: None, place: 1.into() }];
    let mut prompts = match plan.prompts {
        Prompts::Text(text) => alone(text),
        Prompts::StandardInput => alone(read_to_end(io::stdin())?),
        Prompts::File(path, columns) => read_prompts(&path, &columns)?,
    };
    let gpu = plan.gpu.open()?;
    let policy =
        Policy::frozen(&gpu, &plan.policy.model, plan.policy.adapter.as_deref(), plan.base_dtype).wait()?;
    warn_of(&policy.model);
    if plan.chat {
        if policy.template.is_none() {
            let why = "has no chat template: leave out --chat to continue the prompt as plain text";
            return Err(Error::file(&plan.policy.model, why));
        }
        prompts.iter_mut().for_each(|row| row.prompt = said(&row.prompt, plan.system.as_deref()));
    }
    let context = policy.model.context();
    let encode = |row: &Prompt| {
        let ids = policy.encoder().prompt(&row.prompt);
        let ids = if row.place.file.is_some() { ids.map_err(at(&row.place)) } else { ids }?;
        let what = || match &row.place.file {
            Some(path) => format!("the prompt in {}:{}", path.display(), row.place.line),
            None => "the prompt".into(),
        };
        match ids.len() < context {
            true => Ok(ids),
            false => Err(Error::TooLong { what: what(), tokens: ids.len(), limit: context - 1 }),
        }
    };
    let encoded = prompts.iter().map(encode).collect::<Result<Vec<_>>>()?;
    let longest = encoded.iter().map(Vec::len).max().unwrap_or(1);
    let samples = encoded.len() * plan.num_samples;
    let options = GenerateOptions {
        sampling: plan.sampling.params,
        max_new_tokens: plan.sampling.max_new_tokens.min(context - 1),
        max_prompt_tokens: longest,
        slots: slots_for(plan.sampling.slots, samples),
        samples_per_prompt: plan.num_samples,
        eos: policy.tokenizer.eos_ids().to_vec(),
    };
    let generator = policy.generator(options).wait()?;
    let request = |(i, prompt): (usize, Vec<u32>)| Request {
        prompt,
        samples: plan.num_samples,
        first_sequence: (i * plan.num_samples) as u32,
    };
    let requests: Vec<Request> = encoded.into_iter().enumerate().map(request).collect();
    let stop = StopMatcher::new(plan.sampling.stop);
    if let ([_], 1, false) = (&requests[..], plan.num_samples, plan.json) {
        return print_streaming(generator.stream(&policy.tokenizer, &requests, &stop, plan.seed).wait()?);
    }
    let mut console = Console::new();
    let mut watch = |done| console.progress("generating", done, samples);
    let answers = generator.run_watched(&policy.tokenizer, &requests, &stop, plan.seed, &mut watch).wait()?;
    drop(console);
    if !plan.json {
        return print_texts(&prompts, &answers);
    }
    let rows = prompts.iter().zip(&answers).flat_map(|(Prompt { prompt, .. }, answers)| {
        answers.iter().map(move |a| {
            json!({
                "prompt": prompt,
                "text": a.text,
                "token_ids": a.token_ids,
                "finish_reason": a.finish_reason,
            })
        })
    });
    write_lines(plan.output.as_deref(), rows)
}

/// A plain prompt as a user message, after the system message. Conversations are returned unchanged.
fn said(prompt: &Text, system: Option<&str>) -> Text {
    let Text::Plain(text) = prompt else { return prompt.clone() };
    let system = system.map(|text| Message::new("system", text));
    let messages = system.into_iter().chain([Message::new("user", text)]).collect();
    Text::Chat(Conversation { messages, ..Conversation::default() })
}

/// Reads the whole input, without the line break at its end.
fn read_to_end(input: impl Read) -> Result<String> {
    let text = io::read_to_string(input).map_err(Error::io("read", "standard input"))?;
    let end = if text.ends_with("\r\n") { 2 } else { usize::from(text.ends_with('\n')) };
    Ok(text[..text.len() - end].to_owned())
}

/// Prints the text of a response as it is generated, followed by a line break.
fn print_streaming(mut stream: AnswerStream<'_>) -> Result<()> {
    while let Some(part) = stream.next().wait()? {
        match part.response {
            None => print_part(&part.text)?,
            Some(_) => print(part.text)?,
        }
    }
    Ok(())
}

/// Prints responses, each with a heading.
fn print_texts(prompts: &[Prompt], answers: &[Vec<Response>]) -> Result<()> {
    for (i, (prompt, answers)) in prompts.iter().zip(answers).enumerate() {
        for (sample, answer) in (1..).zip(answers) {
            let of =
                if answers.len() > 1 { format!(" ({sample} of {})", answers.len()) } else { String::new() };
            let gap = if i == 0 && sample == 1 { "" } else { "\n" };
            print(format!("{gap}--- {}{of}\n{}", beginning(&prompt.prompt.transcript()), answer.text))?;
        }
    }
    Ok(())
}

/// The beginning of a prompt, on one line.
fn beginning(prompt: &str) -> String {
    let words = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(HEADING) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_break_at_the_end_of_the_input_is_removed() {
        for (input, expected) in
            [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), ("", ""), ("\n", "")]
        {
            assert_eq!(read_to_end(input.as_bytes()).unwrap(), expected);
        }
        assert!(read_to_end(&b"\xff"[..]).unwrap_err().to_string().contains("standard input"));
    }

    #[test]
    fn a_long_prompt_is_shortened_in_the_heading() {
        assert_eq!(beginning("the\n fox"), "the fox");
        let long = beginning(&"größer ".repeat(20));
        assert!(long.ends_with('…') && long.chars().count() == HEADING + 1, "{long}");
    }
}
