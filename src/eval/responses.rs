//! A policy's responses to prompts. They are written to a file as they are sampled, so that an interrupted evaluation
//! does not sample them again.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::packing::Tree;
use crate::data::rows::Text;
use crate::data::tokenizer::StopMatcher;
use crate::digest::Digester;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Request, Response, SamplingParams, slots_for};
use crate::json_lines::SharedJsonLines;
use crate::model::{Model, Scored, fingerprint, score_all};
use crate::train::Policy;

/// The number of prompts sampled between two calls of `watch`, as a multiple of the slots.
const ROUNDS: usize = 4;

/// The options of sampling.
#[derive(Clone, Debug)]
pub struct ResponseOptions {
    /// The sampling parameters.
    pub sampling: SamplingParams,
    /// The longest response in tokens, limited by the model's context.
    pub max_new_tokens: usize,
    /// Strings that end a response.
    pub stop: Vec<String>,
    /// Sequences decoded in parallel; `None`: as many as there are prompts, at most 64.
    pub slots: Option<usize>,
    /// The seed of sampling.
    pub seed: u32,
    /// The number of the first prompt in the whole list. The numbers determine the random streams.
    pub first: usize,
}

/// Encodes the prompts for the policy; `None` for a prompt that leaves no room for a response.
///
/// # Errors
/// Errors of the tokenizer or the chat template, with the number of the prompt, counted from 1.
pub fn encode_prompts<'t>(
    policy: &Policy,
    prompts: impl IntoIterator<Item = &'t Text>,
) -> Result<Vec<Option<Vec<u32>>>> {
    let context = policy.model.context();
    let encode = |(number, prompt): (usize, &Text)| {
        let ids = policy.encoder().prompt(prompt).map_err(|error| match error {
            Error::Config { what, why } => Error::config(what, format!("of prompt {number}: {why}")),
            other => other,
        })?;
        Ok((ids.len() < context).then_some(ids))
    };
    (1..).zip(prompts).map(encode).collect()
}

/// A file of sampled responses, `{"id","prompt","text","token_ids","finish_reason"}`. The id is a digest of everything
/// on which a response depends.
pub struct ResponseFile {
    lines: SharedJsonLines,
    /// The digest of the policy.
    source: String,
    known: HashMap<String, Response>,
}

#[derive(Deserialize)]
struct KnownRow {
    id: String,
    #[serde(flatten)]
    response: Response,
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    prompt: &'a Text,
    #[serde(flatten)]
    response: &'a Response,
}

impl ResponseFile {
    /// Reads the file `path` and appends new responses to it. `model` and `adapter` are the folders of the policy.
    /// Lines that are not responses, such as an incomplete last line, are skipped.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path, model: &Path, adapter: Option<&Path>) -> Result<ResponseFile> {
        let mut digester = Digester::default();
        digester.bytes(fingerprint::model(model)?.to_string().as_bytes());
        if let Some(adapter) = adapter {
            digester.bytes(fingerprint::adapter(adapter)?.to_string().as_bytes());
        }
        let (lines, rows, _) = SharedJsonLines::open::<KnownRow>(path)?;
        let known = rows.into_iter().map(|row| (row.id, row.response)).collect();
        Ok(ResponseFile { lines, source: digester.finish().to_string(), known })
    }

    /// The digest of the policy. Policies with the same digest are the same.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn id(&self, number: usize, prompt: &[u32], options: &ResponseOptions) -> String {
        let ResponseOptions { sampling, max_new_tokens, stop, slots: _, seed, first } = options;
        let mut digester = Digester::default();
        digester.bytes(self.source.as_bytes());
        let number = first + number;
        digester.bytes(format!("{sampling:?} {max_new_tokens} {stop:?} {seed} {number}").as_bytes());
        digester.ids(prompt);
        digester.finish().to_string()
    }
}

/// A prompt as text and as tokens of the policy.
pub struct EncodedPrompt<'t> {
    /// The text, for the file.
    pub text: &'t Text,
    /// Token ids.
    pub ids: Vec<u32>,
}

/// Samples a response to each prompt. The result depends only on the seed, the prompt and its number. `watch` is called
/// with the number of responses so far and may stop the sampling with an error.
///
/// # Errors
/// As [`Generator::new`] and [`Generator::run`]; those of `watch`.
pub async fn sample_responses(
    policy: &Policy,
    prompts: &[EncodedPrompt<'_>],
    options: &ResponseOptions,
    mut file: Option<&mut ResponseFile>,
    watch: &mut (dyn FnMut(usize) -> Result<()> + Send),
) -> Result<Vec<Response>> {
    let ids: Vec<Option<String>> = prompts
        .iter()
        .enumerate()
        .map(|(number, prompt)| file.as_ref().map(|file| file.id(number, &prompt.ids, options)))
        .collect();
    let known =
        |number: usize| -> Option<Response> { file.as_ref()?.known.get(ids[number].as_ref()?).cloned() };
    let mut responses: Vec<Option<Response>> = (0..prompts.len()).map(known).collect();
    let missing: Vec<usize> = (0..prompts.len()).filter(|number| responses[*number].is_none()).collect();
    if !missing.is_empty() {
        let context = policy.model.architecture().context;
        let generate = GenerateOptions {
            sampling: options.sampling,
            max_new_tokens: options.max_new_tokens.min(context - 1),
            max_prompt_tokens: missing.iter().map(|number| prompts[*number].ids.len()).max().unwrap_or(1),
            slots: slots_for(options.slots, missing.len()),
            samples_per_prompt: 1,
            eos: policy.tokenizer.eos_ids().to_vec(),
        };
        let rounds = ROUNDS * generate.slots;
        let generator = policy.generator(generate).await?;
        let stop = StopMatcher::new(options.stop.iter().cloned());
        let mut done = prompts.len() - missing.len();
        for chunk in missing.chunks(rounds) {
            watch(done)?;
            let request = |number: &usize| Request {
                prompt: prompts[*number].ids.clone(),
                samples: 1,
                first_sequence: (options.first + *number) as u32,
            };
            let requests: Vec<Request> = chunk.iter().map(request).collect();
            let drawn = generator.run(&policy.tokenizer, &requests, &stop, options.seed).await?;
            for (number, response) in chunk.iter().zip(drawn) {
                responses[*number] = response.into_iter().next();
            }
            if let Some(file) = &mut file {
                let row = |number: &usize| {
                    Some(Row {
                        id: ids[*number].as_deref()?,
                        prompt: prompts[*number].text,
                        response: responses[*number].as_ref()?,
                    })
                };
                let rows: Vec<Row> = chunk.iter().filter_map(row).collect();
                file.lines.append(&rows)?;
            }
            done += chunk.len();
        }
    }
    watch(prompts.len())?;
    Ok(responses.into_iter().map(|response| response.expect("all were sampled")).collect())
}

/// log π(y | x) of each response in nats. Each tree has a prompt and its responses as token ids.
///
/// # Errors
/// As [`score_all`].
pub async fn log_probabilities(model: &Model, trees: &[Tree]) -> Result<Vec<f64>> {
    Ok(score_all(model, trees, &mut |_| ()).await?.iter().map(Scored::logp).collect())
}
