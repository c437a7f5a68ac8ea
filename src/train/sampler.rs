//! Answers of the policy as it is at the moment.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::options::AlignOptions;
use super::rows::EncodedRows;
use super::session::{Draws, timed};
use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::Result;
use crate::generate::{FinishReason, Generator, Request, Response};

/// A step's prompts, answered: for each of them its samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sampled {
    /// Rows that were taken before these prompts.
    first: u64,
    pub of: Vec<Vec<Response>>,
    pub sampling_ms: f64,
}

/// Answers prompts.
pub(super) struct Sampler<'a> {
    pub generator: &'a Generator,
    pub tokenizer: &'a Tokenizer,
    pub rows: &'a EncodedRows,
    pub options: &'a AlignOptions,
    pub stop: StopMatcher,
    pub seed: u32,
}

impl Sampler<'_> {
    pub fn answer(&self, draws: &Draws) -> Result<Sampled> {
        let samples = self.options.num_samples;
        let request = |(draw, row): (u64, &usize)| {
            let first_sequence = (draw * samples as u64) as u32;
            Ok(Request { prompt: self.rows.tree(*row)?.prompt, samples, first_sequence })
        };
        let requests: Vec<Request> = (draws.first..).zip(&draws.rows).map(request).collect::<Result<_>>()?;
        let (of, sampling_ms) =
            timed(|| self.generator.run(self.tokenizer, &requests, &self.stop, self.seed))?;
        Ok(Sampled { first: draws.first, of, sampling_ms })
    }

    /// What is wrong with answers that a checkpoint kept for these draws, if anything is.
    pub fn fault(&self, kept: &Sampled, draws: &Draws) -> Result<Option<String>> {
        let AlignOptions { num_samples, max_new_tokens, .. } = *self.options;
        if kept.first != draws.first || kept.of.len() != draws.rows.len() {
            return Ok(Some(format!("{} prompts from draw {} on are answered", kept.of.len(), kept.first)));
        }
        for (i, (answers, row)) in kept.of.iter().zip(&draws.rows).enumerate() {
            let prompt = self.rows.tree(*row)?.prompt;
            if answers.len() != num_samples {
                return Ok(Some(format!("prompt {i} has {} answers, not {num_samples}", answers.len())));
            }
            for answer in answers {
                let ids = &answer.token_ids;
                if self.tokenizer.check(ids).is_err() || ids.is_empty() || ids.len() > max_new_tokens {
                    return Ok(Some(format!("an answer to prompt {i} has token ids that were never drawn")));
                }
                if !self.reads(&prompt, answer)? {
                    return Ok(Some(format!("an answer to prompt {i} has another text than its token ids")));
                }
            }
        }
        Ok(None)
    }

    /// Whether an answer's token ids read as its text.
    fn reads(&self, prompt: &[u32], answer: &Response) -> Result<bool> {
        let ids = &answer.token_ids;
        let cut = self.stop.cut(self.tokenizer, prompt, ids)?;
        let text = match (answer.finish_reason, cut) {
            (FinishReason::Stop, Some(text)) => text,
            (FinishReason::Eos, None) => self.tokenizer.decode_after(prompt, &ids[..ids.len() - 1], true)?,
            (FinishReason::Length, None) => self.tokenizer.decode_after(prompt, ids, true)?,
            _ => return Ok(false),
        };
        Ok(text == answer.text)
    }
}

/// Metrics of a step's answers.
pub(super) fn response_metrics(answers: &[Vec<Response>]) -> Map<String, Value> {
    let all: Vec<&Response> = answers.iter().flatten().collect();
    let mean = |of: &dyn Fn(&Response) -> f64| all.iter().map(|a| of(a)).sum::<f64>() / all.len() as f64;
    Map::from_iter([
        ("completions/mean_length".to_owned(), json!(mean(&|a| a.token_ids.len() as f64))),
        (
            "val/contain_eos_token".to_owned(),
            json!(mean(&|a| (a.finish_reason == FinishReason::Eos) as u32 as f64)),
        ),
    ])
}
