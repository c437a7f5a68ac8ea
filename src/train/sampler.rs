//! Sampling from the current policy.

use serde::{Deserialize, Serialize};

use super::batches::Draws;
use super::options::AlignOptions;
use super::policy::Policy;
use super::report::ResponseReport;
use super::rows::EncodedRows;
use crate::data::packing::Tree;
use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::{Error, Result};
use crate::generate::{FinishReason, Generator, Request, Response};

/// The prompts of a step with their sampled responses.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sampled {
    /// For each prompt its draw number.
    pub draws: Vec<u64>,
    /// The number of updates of the policy that sampled the responses.
    pub policy_step: usize,
    pub of: Vec<Vec<Response>>,
    /// log π of the tokens at that time, if a policy gradient needs them.
    pub logps: Vec<Vec<Vec<f32>>>,
}

impl Sampled {
    /// Joins the parts of all ranks, in their order.
    pub fn joined(parts: Vec<Sampled>) -> Sampled {
        let mut parts = parts.into_iter();
        let mut all = parts.next().expect("at least one rank");
        for part in parts {
            all.draws.extend(part.draws);
            all.of.extend(part.of);
            all.logps.extend(part.logps);
        }
        all
    }

    /// The tree of a prompt and some of its responses. `row` is the prompt's row in the dataset.
    pub fn tree(&self, rows: &EncodedRows, row: usize, prompt: usize, samples: &[usize]) -> Result<Tree> {
        let answer = |sample: &usize| self.of[prompt][*sample].token_ids.clone();
        Ok(Tree { prompt: rows.tree(row)?.prompt, responses: samples.iter().map(answer).collect() })
    }

    /// The trees of all prompts with all their responses. `of` are the rows of the prompts in the dataset.
    pub fn trees(&self, rows: &EncodedRows, of: &[usize]) -> Result<Vec<Tree>> {
        let all = |prompt: usize| -> Vec<usize> { (0..self.of[prompt].len()).collect() };
        of.iter().enumerate().map(|(prompt, row)| self.tree(rows, *row, prompt, &all(prompt))).collect()
    }
}

/// Samples responses to prompts.
pub(super) struct Sampler {
    generator: Generator,
    /// Samples the second response to each prompt from the reference model, if the loss needs one.
    reference: Option<Generator>,
    num_samples: usize,
    active: usize,
    max_new_tokens: usize,
    stop: StopMatcher,
    seed: u32,
}

impl Sampler {
    pub fn new(
        generator: Generator,
        reference: Option<Generator>,
        options: &AlignOptions,
        seed: u32,
    ) -> Sampler {
        let stop = StopMatcher::new(options.stop.iter().cloned());
        let AlignOptions { num_samples, active, max_new_tokens, .. } = *options;
        Sampler { generator, reference, num_samples, active, max_new_tokens, stop, seed }
    }

    /// Samples responses from the current policy, after `policy_step` updates. The second response to each prompt comes
    /// from the reference model, if there is a generator for it.
    pub async fn answer(
        &self,
        policy: &Policy,
        rows: &EncodedRows,
        draws: &Draws,
        policy_step: usize,
    ) -> Result<Sampled> {
        let run = async |generator: &Generator, samples: std::ops::Range<usize>| {
            let request = |(draw, row): (u64, &usize)| {
                let first_sequence = u32::try_from(draw * self.num_samples as u64 + samples.start as u64)
                    .map_err(|_| {
                        Error::config("max-steps", "is too high: a run samples at most 2³² responses")
                    })?;
                Ok(Request { prompt: rows.tree(*row)?.prompt, samples: samples.len(), first_sequence })
            };
            let requests: Vec<Request> =
                (draws.first..).zip(&draws.rows).map(request).collect::<Result<_>>()?;
            generator.run(&policy.tokenizer, &requests, &self.stop, self.seed).await
        };
        let of = match &self.reference {
            None => run(&self.generator, 0..self.num_samples).await?,
            Some(reference) => {
                let mut of = run(&self.generator, 0..1).await?;
                of.iter_mut().zip(run(reference, 1..2).await?).for_each(|(own, other)| own.extend(other));
                of
            }
        };
        let numbers = (draws.first..).take(draws.rows.len()).collect();
        Ok(Sampled { draws: numbers, policy_step, of, logps: Vec::new() })
    }

    /// Whether some responses come from the reference model.
    pub fn has_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// Checks responses that a checkpoint stored for these draws. Returns the fault, if there is one.
    pub fn fault(
        &self,
        policy: &Policy,
        rows: &EncodedRows,
        kept: &Sampled,
        draws: &Draws,
    ) -> Result<Option<String>> {
        let max_new_tokens = self.max_new_tokens;
        let (all, samples) = (draws.rows.len(), if self.active > 1 { 2 } else { self.num_samples });
        let prompts = kept.of.len();
        let complete = if self.active > 1 { prompts <= all / self.active } else { prompts == all };
        if !complete || kept.draws.len() != prompts {
            return Ok(Some(format!("{prompts} of {all} prompts have responses")));
        }
        for (i, (answers, draw)) in kept.of.iter().zip(&kept.draws).enumerate() {
            let Some(row) = draws.row(*draw) else {
                return Ok(Some(format!("prompt {i} has draw number {draw}, which is not in the step")));
            };
            let prompt = rows.tree(row)?.prompt;
            if answers.len() != samples {
                return Ok(Some(format!("prompt {i} has {} responses, not {samples}", answers.len())));
            }
            for answer in answers {
                let ids = &answer.token_ids;
                if policy.tokenizer.check(ids).is_err() || ids.is_empty() || ids.len() > max_new_tokens {
                    return Ok(Some(format!("a response to prompt {i} has invalid token ids")));
                }
                if !self.reads(&policy.tokenizer, &prompt, answer)? {
                    return Ok(Some(format!(
                        "the text of a response to prompt {i} does not match its token ids"
                    )));
                }
            }
        }
        let logps: Vec<Vec<usize>> = kept.logps.iter().map(|of| of.iter().map(Vec::len).collect()).collect();
        let tokens = |of: &Vec<Response>| of.iter().map(|answer| answer.token_ids.len()).collect();
        if !logps.is_empty() && logps != kept.of.iter().map(tokens).collect::<Vec<Vec<usize>>>() {
            return Ok(Some("the number of log-probabilities differs from the number of tokens".into()));
        }
        Ok(None)
    }

    /// Whether a response's token ids decode to its text.
    fn reads(&self, tokenizer: &Tokenizer, prompt: &[u32], answer: &Response) -> Result<bool> {
        let ids = &answer.token_ids;
        let cut = self.stop.cut(tokenizer, prompt, ids)?;
        let text = match (answer.finish_reason, cut) {
            (FinishReason::Stop, Some(text)) => text,
            (FinishReason::Eos, None) => tokenizer.decode_after(prompt, &ids[..ids.len() - 1], true)?,
            (FinishReason::Length, None) => tokenizer.decode_after(prompt, ids, true)?,
            _ => return Ok(false),
        };
        Ok(text == answer.text)
    }
}

/// The report on the responses of a step.
pub(super) fn response_report(answers: &[Vec<Response>]) -> ResponseReport {
    let all: Vec<&Response> = answers.iter().flatten().collect();
    // With `--active`, all responses of a step may be equal, and none is left.
    let mean = |of: &dyn Fn(&Response) -> f64| {
        (!all.is_empty()).then(|| all.iter().map(|a| of(a)).sum::<f64>() / all.len() as f64)
    };
    ResponseReport {
        mean_length: mean(&|a| a.token_ids.len() as f64),
        contain_eos_token: mean(&|a| (a.finish_reason != FinishReason::Length) as u32 as f64),
    }
}
