//! Evaluation during a run.
//!
//! On held-out prompts, the starting model responds once and the current policy at every evaluation. The judge of the
//! run compares both.
//!
//! On held-out pairs, the loss and the accuracy are computed.
//!
//! Evaluation does not change the training: it samples with a seed of its own.

use serde::Serialize;

use super::identity::described;
use super::options::TrainOptions;
use super::policy::Policy;
use super::report::EvaluationReport;
use super::rows::EncodedRows;
use crate::collective::Ranks;
use crate::data::packing::Tree;
use crate::data::rows::{Pair as PreferenceRow, Prompt, Text};
use crate::digest::Digester;
use crate::error::{Error, Result};
use crate::eval::comparison::Decision;
use crate::eval::interval::wilson_of_preferences;
use crate::eval::judging::PairVerdict;
use crate::eval::responses::{
    EncodedPrompt, ResponseOptions, encode_prompts, log_probabilities, sample_responses,
};
use crate::generate::Response;
use crate::judge::Pair;
use crate::model::Model;
use crate::numbers::evenly;

/// Held-out prompts whose responses are kept.
const KEPT: usize = 20;

/// A held-out prompt with two responses, a row of `eval_samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EvalSample {
    /// The step of the evaluation.
    pub step: usize,
    /// The prompt, as shown to the judge.
    pub prompt: String,
    /// The response of the policy before the first step.
    pub starting_response: String,
    /// The response of the policy after the step.
    pub policy_response: String,
    /// "win" of the policy, "tie", "loss" or "invalid".
    pub verdict: &'static str,
    /// The judge's probability that the policy's response is better, shown first.
    pub p_12: Option<f64>,
    /// The same, shown second.
    pub p_21: Option<f64>,
}

/// The evaluation on held-out prompts.
pub(super) struct Evaluation {
    /// The texts of the dataset, and their tokens.
    prompts: Vec<(Text, Vec<u32>)>,
    /// The prompts as shown to the judge.
    shown: Vec<String>,
    options: ResponseOptions,
    /// Steps between two evaluations; `None`: only at the end.
    every: Option<usize>,
    /// A copy of the starting model.
    start: Model,
    /// The responses of the starting model, once sampled.
    starting_responses: Vec<Response>,
    /// The number of prompts read.
    read: usize,
    /// The ranks among which sampling is divided.
    ranks: Ranks,
}

/// Preference pairs that are not trained on.
pub(super) struct HeldOutPairs {
    pub rows: EncodedRows,
    /// Steps between two evaluations; `None`: only at the end.
    every: Option<usize>,
}

impl HeldOutPairs {
    /// Encodes `pairs` and keeps those within the length limits of the run.
    ///
    /// # Errors
    /// Errors in the rows; [`Error::Config`] if no pair is left, and for `every` = 0.
    pub fn new(
        policy: &Policy,
        pairs: impl IntoIterator<Item = Result<PreferenceRow>>,
        append_eos: bool,
        train: &TrainOptions,
        every: Option<usize>,
    ) -> Result<HeldOutPairs> {
        check(every)?;
        let rows = EncodedRows::given(policy, pairs, append_eos, train).map_err(|error| match error {
            Error::Config { what, why } if what == "dataset" => Error::config("eval-dataset", why),
            other => other,
        })?;
        Ok(HeldOutPairs { rows, every })
    }

    /// The number of pairs kept, and of pairs read.
    pub fn kept_of_read(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.table().read())
    }

    /// Whether an evaluation is due after `step` of `total` steps.
    pub fn are_due(&self, step: usize, total: usize) -> bool {
        is_due(self.every, step, total)
    }
}

fn check(every: Option<usize>) -> Result<()> {
    match every {
        Some(0) => Err(Error::config(
            "eval-steps",
            "is 0: set it to at least 1, or leave it out to evaluate only at the end",
        )),
        _ => Ok(()),
    }
}

fn is_due(every: Option<usize>, step: usize, total: usize) -> bool {
    step == total || every.is_some_and(|every| step.is_multiple_of(every))
}

impl Evaluation {
    /// Keeps the prompts that leave room for a response, in their order. `start` is a frozen copy of the initial
    /// policy.
    ///
    /// # Errors
    /// [`Error::Config`] if no prompt is left.
    pub fn new(
        policy: &Policy,
        start: Model,
        prompts: &[Prompt],
        options: ResponseOptions,
        every: Option<usize>,
        ranks: Ranks,
    ) -> Result<Evaluation> {
        check(every)?;
        let read = prompts.len();
        let encoded = encode_prompts(policy, prompts.iter().map(|row| &row.prompt))?;
        let prompts: Vec<(Text, Vec<u32>)> =
            prompts.iter().zip(encoded).filter_map(|(row, ids)| Some((row.prompt.clone(), ids?))).collect();
        if prompts.is_empty() {
            let why = "has no prompt that leaves room for a response: use shorter prompts";
            return Err(Error::config("eval-dataset", why));
        }
        let shown = prompts.iter().map(|(prompt, _)| prompt.transcript()).collect();
        Ok(Evaluation { prompts, shown, options, every, start, starting_responses: Vec::new(), read, ranks })
    }

    /// A description of the prompts with a digest.
    pub fn identity(&self) -> String {
        let mut digester = Digester::default();
        for ((_, ids), shown) in self.prompts.iter().zip(&self.shown) {
            digester.ids(ids);
            digester.bytes(shown.as_bytes());
        }
        described(self.prompts.len(), digester)
    }

    /// The number of prompts kept, and of prompts read.
    pub fn kept_of_read(&self) -> (usize, usize) {
        (self.prompts.len(), self.read)
    }

    /// Whether an evaluation is due after `step` of `total` steps.
    pub fn is_due(&self, step: usize, total: usize) -> bool {
        is_due(self.every, step, total)
    }

    /// Samples the responses of the starting model. `policy` must not have been trained yet. `watch` as in
    /// [`sample_responses`].
    pub async fn sample_start(
        &mut self,
        policy: &Policy,
        watch: &mut (dyn FnMut(usize) -> Result<()> + Send),
    ) -> Result<()> {
        // Another seed, so that the two sets of responses of an untrained policy are independent.
        self.starting_responses = self.responses(policy, self.options.seed.wrapping_add(1), watch).await?;
        Ok(())
    }

    /// Samples the responses of the current policy.
    pub async fn sample(
        &self,
        policy: &Policy,
        watch: &mut (dyn FnMut(usize) -> Result<()> + Send),
    ) -> Result<Vec<Response>> {
        self.responses(policy, self.options.seed, watch).await
    }

    async fn responses(
        &self,
        policy: &Policy,
        seed: u32,
        watch: &mut (dyn FnMut(usize) -> Result<()> + Send),
    ) -> Result<Vec<Response>> {
        let part = self.ranks.part(self.prompts.len());
        let options = ResponseOptions { seed, first: part.start, ..self.options.clone() };
        let prompts: Vec<EncodedPrompt> =
            self.prompts[part].iter().map(|(text, ids)| EncodedPrompt { text, ids: ids.clone() }).collect();
        self.ranks.join(sample_responses(policy, &prompts, &options, None, watch).await).await
    }

    /// The pairs to be judged. The first response is that of the current policy.
    pub fn pairs<'p>(&'p self, responses: &'p [Response]) -> Vec<Pair<'p>> {
        let texts = self.shown.iter().zip(responses.iter().zip(&self.starting_responses));
        texts
            .map(|(prompt, (own, start))| Pair { prompt, response_1: &own.text, response_2: &start.text })
            .collect()
    }

    /// Some of the prompts, evenly spread, with both responses and the verdict.
    pub fn samples(&self, step: usize, responses: &[Response], verdicts: &[PairVerdict]) -> Vec<EvalSample> {
        let sample = |i: usize| EvalSample {
            step,
            prompt: self.shown[i].clone(),
            starting_response: self.starting_responses[i].text.clone(),
            policy_response: responses[i].text.clone(),
            verdict: verdicts[i].decision().map_or("invalid", Decision::name),
            p_12: verdicts[i].p_12,
            p_21: verdicts[i].p_21,
        };
        evenly(self.shown.len(), KEPT).map(sample).collect()
    }

    /// Computes the report; `None` if no verdict is usable.
    pub async fn report(
        &self,
        policy: &Policy,
        responses: &[Response],
        verdicts: &[PairVerdict],
    ) -> Result<Option<EvaluationReport>> {
        let decisions: Vec<Decision> = verdicts.iter().filter_map(PairVerdict::decision).collect();
        let preferences: Vec<f64> = decisions.iter().map(|decision| decision.preference()).collect();
        if preferences.is_empty() {
            return Ok(None);
        }
        let trees: Vec<Tree> = self
            .prompts
            .iter()
            .zip(responses)
            .map(|((_, prompt), response)| Tree {
                prompt: prompt.clone(),
                responses: vec![response.token_ids.clone()],
            })
            .collect();
        let own = log_probabilities(&policy.model, &trees).await?;
        let start = log_probabilities(&self.start, &trees).await?;
        let count = responses.len() as f64;
        let mean_length = |responses: &[Response]| {
            responses.iter().map(|response| response.token_ids.len() as f64).sum::<f64>()
                / responses.len() as f64
        };
        let interval = wilson_of_preferences(&preferences);
        Ok(Some(EvaluationReport {
            win_rate: preferences.iter().sum::<f64>() / preferences.len() as f64,
            win_rate_low: interval.low,
            win_rate_high: interval.high,
            prompts: preferences.len(),
            ties: decisions.iter().filter(|decision| **decision == Decision::Tie).count(),
            mean_length: mean_length(responses),
            starting_length: mean_length(&self.starting_responses),
            kl: own.iter().zip(&start).map(|(own, start)| own - start).sum::<f64>() / count,
        }))
    }
}
