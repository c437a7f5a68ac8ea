//! `oaif generate`.

use serde_json::json;

use super::{warn_of, write_lines};
use crate::cli::args::{GeneratePlan, Prompts};
use crate::data::rows::{Prompt, Text, read_prompts};
use crate::data::tokenizer::StopMatcher;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Generator, Request, slots_for};
use crate::gpu::Arena;
use crate::train::Policy;

pub fn run(plan: GeneratePlan) -> Result<()> {
    let (prompts, file) = match plan.prompts {
        Prompts::Text(text) => (vec![Prompt { prompt: Text::Plain(text), reference: None, line: 1 }], None),
        Prompts::File(path, columns) => (read_prompts(&path, &columns)?, Some(path)),
    };
    let gpu = plan.gpu.open()?;
    let policy = Policy::frozen(&gpu, &plan.model, plan.adapter.as_deref(), plan.dtype)?;
    warn_of(&policy.model);
    let context = policy.model.architecture().context;
    let encode = |row: &Prompt| {
        let ids = policy.encoder().prompt(&row.prompt)?;
        let what = || match &file {
            Some(path) => format!("the prompt in {}:{}", path.display(), row.line),
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
    let generator = Generator::new(&gpu, &policy.model, options, &Arena::new())?;
    let request = |(i, prompt): (usize, Vec<u32>)| Request {
        prompt,
        samples: plan.num_samples,
        first_sequence: (i * plan.num_samples) as u32,
    };
    let requests: Vec<Request> = encoded.into_iter().enumerate().map(request).collect();
    let stop = StopMatcher::new(plan.sampling.stop);
    let answers = generator.run(&policy.tokenizer, &requests, &stop, plan.seed)?;
    if !plan.json {
        return answers.iter().flatten().try_for_each(|answer| crate::cli::print(&answer.text));
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
