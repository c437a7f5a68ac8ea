//! Answers of the policy as it is at the moment.

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

/// A step's prompts, answered: for each of them its samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sampled {
    /// For each prompt how many were drawn before it, in all.
    pub draws: Vec<u64>,
    /// Updates of the policy that drew them.
    pub policy_step: usize,
    pub of: Vec<Vec<Response>>,
    /// log π of their tokens then, where a policy gradient needs them.
    pub logps: Vec<Vec<Vec<f32>>>,
}

impl Sampled {
    /// All parts of a step's prompts, in their order.
    pub fn joined(parts: Vec<Sampled>) -> Sampled {
        let mut parts = parts.into_iter();
        let mut all = parts.next().expect("each rank has one");
        for part in parts {
            all.draws.extend(part.draws);
            all.of.extend(part.of);
            all.logps.extend(part.logps);
        }
        all
    }

    /// The tree of a prompt, which is this row of the dataset, and some of its samples.
    pub fn tree(&self, rows: &EncodedRows, row: usize, prompt: usize, samples: &[usize]) -> Result<Tree> {
        let answer = |sample: &usize| self.of[prompt][*sample].token_ids.clone();
        Ok(Tree { prompt: rows.tree(row)?.prompt, responses: samples.iter().map(answer).collect() })
    }

    /// The trees of all prompts, which are these rows of the dataset, with all their samples.
    pub fn trees(&self, rows: &EncodedRows, of: &[usize]) -> Result<Vec<Tree>> {
        let all = |prompt: usize| -> Vec<usize> { (0..self.of[prompt].len()).collect() };
        of.iter().enumerate().map(|(prompt, row)| self.tree(rows, *row, prompt, &all(prompt))).collect()
    }
}

/// Answers prompts.
pub(super) struct Sampler {
    generator: Generator,
    /// Draws each prompt's second answer, where the loss needs one of the reference.
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

    /// The answers of the policy as it is (the second of each prompt the reference's, where there is one), after `policy_step` updates.
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
                        Error::config("max-steps", "is too high: a run draws at most 2³² answers")
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

    /// Whether a prompt's answers are not all the policy's.
    pub fn has_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// What is wrong with answers that a checkpoint kept for these draws, if anything is.
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
            return Ok(Some(format!("{prompts} prompts are answered, of {all}")));
        }
        for (i, (answers, draw)) in kept.of.iter().zip(&kept.draws).enumerate() {
            let Some(row) = draws.row(*draw) else {
                return Ok(Some(format!("prompt {i} is draw {draw}, which is none of the step's")));
            };
            let prompt = rows.tree(row)?.prompt;
            if answers.len() != samples {
                return Ok(Some(format!("prompt {i} has {} answers, not {samples}", answers.len())));
            }
            for answer in answers {
                let ids = &answer.token_ids;
                if policy.tokenizer.check(ids).is_err() || ids.is_empty() || ids.len() > max_new_tokens {
                    return Ok(Some(format!("an answer to prompt {i} has token ids that were never drawn")));
                }
                if !self.reads(&policy.tokenizer, &prompt, answer)? {
                    return Ok(Some(format!("an answer to prompt {i} has another text than its token ids")));
                }
            }
        }
        let logps: Vec<Vec<usize>> = kept.logps.iter().map(|of| of.iter().map(Vec::len).collect()).collect();
        let tokens = |of: &Vec<Response>| of.iter().map(|answer| answer.token_ids.len()).collect();
        if !logps.is_empty() && logps != kept.of.iter().map(tokens).collect::<Vec<Vec<usize>>>() {
            return Ok(Some("log-probabilities are not one for each token".into()));
        }
        Ok(None)
    }

    /// Whether an answer's token ids read as its text.
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

/// What a step's answers are like.
pub(super) fn response_report(answers: &[Vec<Response>]) -> ResponseReport {
    let all: Vec<&Response> = answers.iter().flatten().collect();
    // With `--active`, a step's answers may all be alike, and none is left.
    let mean = |of: &dyn Fn(&Response) -> f64| {
        (!all.is_empty()).then(|| all.iter().map(|a| of(a)).sum::<f64>() / all.len() as f64)
    };
    ResponseReport {
        mean_length: mean(&|a| a.token_ids.len() as f64),
        contain_eos_token: mean(&|a| (a.finish_reason == FinishReason::Eos) as u32 as f64),
    }
}
