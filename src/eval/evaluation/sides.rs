//! The responses of A and B.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use super::prompts::EvalTask;
use super::{EvalOptions, Event, Watch};
use crate::data::packing::Tree;
use crate::data::rows::{Text, read_answers};
use crate::error::{Error, Result};
use crate::eval::responses::{
    EncodedPrompt, ResponseFile, ResponseOptions, encode_prompts, log_probabilities, sample_responses,
};
use crate::eval::result::EvaluatedResponse;
use crate::generate::FinishReason;
use crate::gpu::Gpu;
use crate::model::fingerprint;
use crate::train::{Policy, PolicyFiles};

/// Files of sampled responses, written during sampling.
const SAMPLED: [&str; 2] = ["responses_a.jsonl", "responses_b.jsonl"];
/// The names of the sides.
const NAMES: [&str; 2] = ["A", "B"];

/// Where the responses of one side come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    /// Sampled from a policy.
    Policy {
        /// The name of the policy in the results.
        name: String,
        /// Its files.
        files: PolicyFiles,
    },
    /// Read from a file.
    Responses(PathBuf),
    /// The reference responses of the dataset.
    Reference,
}

impl Side {
    /// The name in the results.
    pub(super) fn name(&self) -> String {
        match self {
            Side::Policy { name, .. } => name.clone(),
            Side::Responses(path) => format!("the responses of {}", path.display()),
            Side::Reference => "the reference responses".to_owned(),
        }
    }

    /// The responses of a side that needs no sampling, one per prompt.
    pub(super) fn given(&self, tasks: &[EvalTask]) -> Result<Option<Vec<String>>> {
        match self {
            Side::Policy { .. } => Ok(None),
            Side::Responses(path) => of_file(path, tasks).map(Some),
            Side::Reference => references(tasks).map(Some),
        }
    }
}

/// The responses of a file, matched by their prompts. Responses to equal prompts are used in order.
fn of_file(path: &Path, tasks: &[EvalTask]) -> Result<Vec<String>> {
    let mut known: HashMap<String, VecDeque<String>> = HashMap::new();
    for row in read_answers(path)? {
        known.entry(row.prompt.transcript().trim().to_owned()).or_default().push_back(row.answer);
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for task in tasks {
        let prompt = task.prompt.transcript();
        match known.get_mut(prompt.trim()).and_then(VecDeque::pop_front) {
            Some(response) => found.push(response),
            None => missing.push(prompt),
        }
    }
    let Some(first) = missing.first() else { return Ok(found) };
    let first: String = first.chars().take(60).collect();
    let why = format!(
        "has no response to {} of {} prompts, the first of them {first:?}: give responses to these prompts, or give the \
         prompts of the file as `dataset`",
        missing.len(),
        tasks.len()
    );
    Err(Error::file(path, why))
}

/// The reference responses of the dataset.
fn references(tasks: &[EvalTask]) -> Result<Vec<String>> {
    let found: Vec<String> = tasks.iter().filter_map(|task| task.reference.clone()).collect();
    let missing = tasks.len() - found.len();
    if missing > 0 {
        let why = format!(
            "reference: {missing} of {} prompts have no reference response: give `reference-column`, or another `against`",
            tasks.len()
        );
        return Err(Error::config("against", why));
    }
    Ok(found)
}

/// The responses of one side.
#[derive(Default)]
pub(super) struct SideResponses {
    /// One per prompt; `None` where the prompt leaves no room for a response in the context.
    pub of: Vec<Option<EvaluatedResponse>>,
    /// The numbers of the prompts whose responses a policy wrote.
    numbers: Vec<usize>,
    /// The tokens of these prompts and responses.
    trees: Vec<Tree>,
    /// The digest of the policy.
    pub source: Option<String>,
    /// The fingerprint of a policy without a LoRA adapter, in the form of a judge's identity, if the judge has a local
    /// model.
    pub model: Option<String>,
}

impl SideResponses {
    fn given(texts: Vec<String>) -> SideResponses {
        let response = |text| Some(EvaluatedResponse { text, ..EvaluatedResponse::default() });
        SideResponses { of: texts.into_iter().map(response).collect(), ..SideResponses::default() }
    }
}

/// The model from which A was trained.
#[derive(Clone, Copy, PartialEq)]
enum KlReference {
    /// A without its LoRA adapter.
    BaseOfA,
    /// B, the starting model of the run.
    B,
}

/// Samples the responses of the policies, and computes the KL of A's responses.
pub(super) struct Sampling<'e> {
    pub gpu: &'e Gpu,
    pub options: &'e EvalOptions,
    pub tasks: &'e [EvalTask],
}

impl Sampling<'_> {
    /// The responses of A and B. Those of `given` are not sampled. Only one policy is in memory at a time.
    pub async fn responses(
        &self,
        given: [Option<Vec<String>>; 2],
        watch: &mut Watch<'_>,
    ) -> Result<[SideResponses; 2]> {
        let [given_a, given_b] = given;
        let (mut a, policy) = self.responses_of(0, given_a, watch).await?;
        let start = policy.as_ref().and_then(|policy| self.kl_reference(policy));
        let (mut own, mut base) = (Vec::new(), Vec::new());
        if let (Some(policy), Some(start)) = (&policy, start) {
            watch(Event::Phase("scoring A's responses"))?;
            own = log_probabilities(&policy.model, &a.trees).await?;
            if start == KlReference::BaseOfA {
                base = log_probabilities(&policy.model.without_adapter(), &a.trees).await?;
            }
        }
        drop(policy);
        let (b, policy) = self.responses_of(1, given_b, watch).await?;
        if let (Some(policy), Some(KlReference::B)) = (&policy, start) {
            watch(Event::Phase("scoring A's responses"))?;
            base = log_probabilities(&policy.model, &a.trees).await?;
        }
        for (number, (own, base)) in a.numbers.iter().zip(own.iter().zip(&base)) {
            a.of[*number].iter_mut().for_each(|response| response.kl = Some(own - base));
        }
        Ok([a, b])
    }

    /// The model from which the policy A was trained, if it is known. That of a run is B; it may have a LoRA adapter too.
    fn kl_reference(&self, a: &Policy) -> Option<KlReference> {
        match (&self.options.run, a.model.adapter()) {
            (None, Some(_)) => Some(KlReference::BaseOfA),
            _ => self.options.b_is_start.then_some(KlReference::B),
        }
    }

    /// The responses of A (`side` 0) or B (1), with the policy that wrote them.
    async fn responses_of(
        &self,
        side: usize,
        given: Option<Vec<String>>,
        watch: &mut Watch<'_>,
    ) -> Result<(SideResponses, Option<Policy>)> {
        let options = self.options;
        let Side::Policy { files, .. } = [&options.a, &options.b][side] else {
            return Ok((SideResponses::given(given.expect("only a policy's responses are sampled")), None));
        };
        watch(Event::Phase(&format!("loading {}", NAMES[side])))?;
        let PolicyFiles { model, adapter } = files;
        let policy = Policy::frozen(self.gpu, model, adapter.as_deref(), options.base_dtype).await?;
        for text in policy.model.warnings() {
            watch(Event::Warning(text))?;
        }
        let mut responses = self.sample(side, &policy, files, watch).await?;
        if adapter.is_none() && !options.judge.models().is_empty() {
            let eos = policy.tokenizer.eos_ids();
            responses.model = Some(fingerprint::judge_model(model, eos)?.to_string());
        }
        Ok((responses, Some(policy)))
    }

    /// Samples the responses of a policy, except those sampled by an earlier, interrupted evaluation.
    async fn sample(
        &self,
        side: usize,
        policy: &Policy,
        PolicyFiles { model, adapter }: &PolicyFiles,
        watch: &mut Watch<'_>,
    ) -> Result<SideResponses> {
        let EvalOptions { sampling, chat, output, .. } = self.options;
        if *chat && policy.template.is_none() {
            let why = "has no chat template: leave out `chat` to continue the prompts as plain text";
            return Err(Error::file(model, why));
        }
        let read: Vec<Text> = self.tasks.iter().map(|task| task.read_by(policy)).collect();
        let encoded = encode_prompts(policy, &read)?;
        let (numbers, prompts): (Vec<usize>, Vec<EncodedPrompt>) = encoded
            .into_iter()
            .enumerate()
            .filter_map(|(i, ids)| Some((i, EncodedPrompt { text: &self.tasks[i].prompt, ids: ids? })))
            .unzip();
        // Different seeds, so that two sides with the same policy get different responses.
        let seed = sampling.seed.wrapping_add(side as u32);
        let sampling = ResponseOptions { seed, ..sampling.clone() };
        let mut file = ResponseFile::open(&output.join(SAMPLED[side]), model, adapter.as_deref())?;
        let (phase, total) = (format!("sampling responses of {}", NAMES[side]), prompts.len());
        let sampled = sample_responses(policy, &prompts, &sampling, Some(&mut file), &mut |done| {
            watch(Event::Progress { phase: &phase, done, total })
        })
        .await?;
        let mut of = vec![None; self.tasks.len()];
        let mut trees = Vec::new();
        for ((number, prompt), response) in numbers.iter().zip(prompts).zip(sampled) {
            of[*number] = Some(EvaluatedResponse {
                text: response.text,
                tokens: Some(response.token_ids.len()),
                ended: Some(response.finish_reason != FinishReason::Length),
                kl: None,
            });
            trees.push(Tree { prompt: prompt.ids, responses: vec![response.token_ids] });
        }
        Ok(SideResponses { of, numbers, trees, source: Some(file.source().to_owned()), model: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(prompts: &[&str]) -> Vec<EvalTask> {
        let task =
            |prompt: &&str| EvalTask { prompt: Text::Plain((*prompt).into()), chat: false, reference: None };
        prompts.iter().map(task).collect()
    }

    #[test]
    fn responses_of_a_file_are_matched_by_their_prompts_and_equal_prompts_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("responses.jsonl");
        let row =
            |prompt: &str, text: &str| format!("{}\n", serde_json::json!({"prompt": prompt, "text": text}));
        std::fs::write(&path, row("b", "1") + &row("a", "2") + &row("b ", "3")).unwrap();
        let side = Side::Responses(path);
        let given = |prompts: &[&str]| side.given(&tasks(prompts));
        assert_eq!(given(&["a", "b", "b"]).unwrap().unwrap(), ["2", "1", "3"]);
        let error = given(&["a", "c", "a"]).unwrap_err().to_string();
        assert!(error.contains("has no response to 2 of 3 prompts, the first of them \"c\""), "{error}");
    }
}
