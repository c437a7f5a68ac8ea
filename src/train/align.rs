//! Online AI feedback: prompts → samples of the current policy → annotator → loss → update (Guo et al. 2024,
//! arXiv 2402.04792, see the crate's documentation).

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::annotation::{Choice, VerdictTotals, annotate};
use super::options::{AlignOptions, TrainOptions};
use super::pair_step::LabelledPair;
use super::pair_trainer::PairTrainer;
use super::policy::Policy;
use super::rows::EncodedRows;
use super::session::{Control, Draws, Session, Sources, StepRecord, milliseconds};
use super::total_steps;
use crate::annotate::Annotator;
use crate::data::packing::Tree;
use crate::data::rows::Prompt;
use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::{Error, Result};
use crate::generate::{FinishReason, GenerateOptions, Generator, Request, Response, slots_for};
use crate::gpu::Arena;
use crate::model::Model;
use crate::model::stream::Capacity;
use crate::optim::Optimiser;

/// What a run holds of the device.
pub(super) struct Plans {
    trainer: PairTrainer,
    generator: Generator,
    optimiser: Optimiser,
}

/// What these prompts need of the device.
pub(super) fn plans(
    model: &Model,
    reference: &Model,
    rows: &EncodedRows,
    eos: &[u32],
    train: &TrainOptions,
    options: &AlignOptions,
) -> Result<Plans> {
    let (batch, max_new) = (train.batch_size, options.max_new_tokens);
    let longest = rows.trees.iter().map(|t| t.prompt.len()).max().unwrap_or(0);
    let capacity = Capacity {
        tokens: rows.largest_batch(batch).tokens + batch * 2 * (max_new - 1),
        targets: batch * 2 * max_new,
        sequences: batch * 2,
    };
    let arena = Arena::new();
    let (trainer, optimiser) = PairTrainer::new(model, reference, train, options.loss, capacity, &arena)?;
    let samples = batch * train.accumulation * options.num_samples;
    let generate = GenerateOptions {
        sampling: options.sampling,
        max_new_tokens: max_new,
        max_prompt_tokens: longest,
        slots: slots_for(options.slots, samples),
        samples_per_prompt: options.num_samples,
        eos: eos.to_vec(),
    };
    let generator = Generator::new(model.gpu(), model, generate, &arena)?;
    Ok(Plans { trainer, generator, optimiser })
}

/// The longest prompt that leaves room for a response.
pub(super) fn prompt_limit(context: usize, train: &TrainOptions, options: &AlignOptions) -> Result<usize> {
    let max_new = options.max_new_tokens;
    if max_new >= context {
        let why = format!("{max_new} leaves no room for a prompt: the model takes {context} tokens in all");
        return Err(Error::config("max-new-tokens", why));
    }
    Ok(train.max_prompt_length.unwrap_or(usize::MAX).min(context - max_new))
}

/// A run that is ready to begin: plans recorded, memory taken.
pub struct AlignRun {
    policy: Policy,
    train: TrainOptions,
    options: AlignOptions,
    rows: EncodedRows,
    texts: Vec<String>,
    trainer: PairTrainer,
    generator: Generator,
    optimiser: Optimiser,
}

impl AlignRun {
    /// Encodes the prompts and records the plans. On a measuring `Gpu` this is the dry run.
    ///
    /// # Errors
    /// [`Error::Config`] for an option out of its range, and where they leave no room for a response; memory errors.
    pub fn new(
        policy: Policy,
        prompts: &[Prompt],
        train: &TrainOptions,
        options: &AlignOptions,
    ) -> Result<AlignRun> {
        train.check()?;
        options.check(train)?;
        let max_prompt = prompt_limit(policy.model.architecture().context, train, options)?;
        let rows = EncodedRows::prompts(&policy.encoder(), prompts, max_prompt)?;
        let (model, eos) = (&policy.model, policy.tokenizer.eos_ids());
        let plans = plans(model, &policy.reference(train)?, &rows, eos, train, options)?;
        let Plans { trainer, generator, optimiser } = plans;
        let texts = rows.sources.iter().map(|row| prompts[*row].prompt.transcript()).collect();
        let (train, options) = (train.clone(), options.clone());
        Ok(AlignRun { policy, train, options, rows, texts, trainer, generator, optimiser })
    }

    /// The encoded prompts.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> usize {
        total_steps(&self.train, self.rows.trees.len())
    }

    /// Trains; returns where the model or adapter was saved.
    ///
    /// # Errors
    /// [`Error::Annotator`] when too many verdicts are unusable; [`Error::Config`] for an
    /// [`async_level`](AlignOptions::async_level) that is not to be had; what a session reports.
    pub fn run(
        self,
        annotator: &mut dyn Annotator,
        sources: Sources,
        control: Control<'_>,
    ) -> Result<PathBuf> {
        let AlignRun { policy, train, options, rows, texts, trainer, generator, optimiser } = self;
        let ahead = options.async_level > 0;
        if ahead && annotator.remote().is_none() {
            let why = format!(
                "is 1, but the annotator, {}, leaves nothing to wait for: leave it out",
                annotator.name()
            );
            return Err(Error::config("async-level", why));
        }
        let total = total_steps(&train, rows.trees.len());
        let mut session =
            Session::begin(&policy.model, optimiser, &train, sources, (total, rows.trees.len()), control)?;
        session.warn_skipped(&rows);
        let sampler = Sampler {
            generator: &generator,
            tokenizer: &policy.tokenizer,
            trees: &rows.trees,
            options: &options,
            stop: StopMatcher::new(options.stop.iter().cloned()),
            seed: train.seed,
        };
        let mut verdicts = VerdictTotals::restore(&session.state);
        let mut sampled = session.state.get(SAMPLED).filter(|_| ahead).map(Sampled::restore).transpose()?;
        while !session.is_done() {
            let draws = session.begin_step();
            session.phase("sampling");
            let answers = match sampled.take() {
                Some(answers) => answers.of_requests(sampler.asked(&draws))?,
                None => sampler.answer(&draws)?,
            };
            let prompts: Vec<&str> = draws.rows.iter().map(|row| texts[*row].as_str()).collect();
            session.phase("annotating");
            let next = session.next_draws().filter(|_| ahead);
            let annotation = match annotator.remote().zip(next) {
                None => timed(|| annotate(annotator, &prompts, &answers.of, options.num_samples))?,
                Some((remote, next)) => std::thread::scope(|scope| {
                    let judging = || timed(|| annotate(remote, &prompts, &answers.of, options.num_samples));
                    let judging = scope.spawn(judging);
                    sampled = Some(sampler.answer(&next)?);
                    judging.join().unwrap_or_else(|panic| resume_unwind(panic))
                })?,
            };
            let (annotation, annotation_ms) = annotation;
            verdicts.add(&annotation.counts);
            verdicts.check(options.max_invalid_ratio, &annotator.name(), &annotation)?;
            session.state = verdicts.save();
            session.state.extend(sampled.iter().map(|answers| (SAMPLED.to_owned(), json!(answers))));

            session.phase("learning");
            let before = Instant::now();
            let choices: Vec<(usize, &Choice)> =
                annotation.choices.iter().enumerate().filter_map(|(i, c)| Some((i, c.as_ref()?))).collect();
            let tree = |(i, c): &(usize, &Choice)| {
                let answer = |s: usize| answers.of[*i][s].token_ids.clone();
                Tree {
                    prompt: rows.trees[draws.rows[*i]].prompt.clone(),
                    responses: vec![answer(c.chosen), answer(c.rejected)],
                }
            };
            let trees: Vec<Tree> = choices.iter().map(tree).collect();
            let reference = trainer.reference(&trees)?;
            let reference_ms = milliseconds(before);
            let pairs: Vec<LabelledPair> = trees
                .into_iter()
                .zip(reference)
                .zip(&choices)
                .map(|((tree, reference), (_, choice))| {
                    let label = if options.soft_labels { choice.probability } else { 1.0 };
                    LabelledPair { tree, reference, label }
                })
                .collect();

            let mut metrics = Map::new();
            let learnt = match pairs.is_empty() {
                true => None,
                false => Some(trainer.learn(&pairs, options.loss)?),
            };
            match &learnt {
                Some(learnt) => {
                    metrics.extend(learnt.metrics());
                    metrics.extend(session.update(learnt.loss())?);
                }
                None => {
                    session.warn("a step without a single usable preference: no update");
                    metrics.insert("loss".into(), Value::Null);
                    metrics.insert("time/update_ms".into(), json!(0.0));
                }
            }
            metrics.extend(response_metrics(&answers.of));
            metrics.extend(annotation.metrics());
            let latency = annotation_ms.as_f64().unwrap_or(0.0) / annotation.counts.judged.max(1) as f64;
            metrics.insert("judge/latency_ms".into(), json!(latency));
            metrics.insert("time/sampling_ms".into(), json!(answers.sampling_ms));
            metrics.insert("time/annotation_ms".into(), annotation_ms);
            metrics.insert("time/reference_ms".into(), reference_ms);
            let tokens: usize = answers.of.iter().flatten().map(|a| a.token_ids.len()).sum();
            session.end_step(StepRecord {
                metrics,
                pairs: annotation.rows(session.step() + 1, &prompts, &answers.of),
                loss: learnt.as_ref().map(|l| l.loss()),
                margin: learnt.as_ref().map(|l| l.margin()),
                judge_win: annotation.counts.first_ratio(),
                tokens: tokens + learnt.as_ref().map_or(0, |l| l.tokens()),
            })?;
        }
        session.finish()
    }
}

/// Where a checkpoint keeps the next step's answers that were drawn before its weights were there.
const SAMPLED: &str = "sampled";

/// A step's prompts, answered: for each of them its samples.
#[derive(Serialize, Deserialize)]
struct Sampled {
    /// What was asked for, see [`Sampler::asked`].
    asked: Value,
    of: Vec<Vec<Response>>,
    sampling_ms: Value,
}

impl Sampled {
    fn restore(saved: &Value) -> Result<Sampled> {
        let broken = |e| {
            let why = format!(
                "the answers in the checkpoint's state.json are damaged ({e}): give an earlier checkpoint, or \
                 --async-level 0"
            );
            Error::config("--resume-from-checkpoint", why)
        };
        serde_json::from_value(saved.clone()).map_err(broken)
    }

    /// Itself, if it answers what is asked for now: a resumed run may have been given something else.
    fn of_requests(self, asked: Value) -> Result<Sampled> {
        if self.asked == asked {
            return Ok(self);
        }
        let why = "the checkpoint holds answers to other prompts, or drawn otherwise: give the --dataset and the sampling \
                   flags of before, or --async-level 0";
        Err(Error::config("--resume-from-checkpoint", why))
    }
}

/// Answers prompts with the policy as it is at the moment.
struct Sampler<'a> {
    generator: &'a Generator,
    tokenizer: &'a Tokenizer,
    trees: &'a [Tree],
    options: &'a AlignOptions,
    stop: StopMatcher,
    seed: u32,
}

impl Sampler<'_> {
    fn answer(&self, draws: &Draws) -> Result<Sampled> {
        let samples = self.options.num_samples;
        let request = |(draw, row): (u64, &usize)| Request {
            prompt: self.trees[*row].prompt.clone(),
            samples,
            first_sequence: (draw * samples as u64) as u32,
        };
        let requests: Vec<Request> = (draws.first..).zip(&draws.rows).map(request).collect();
        let (of, sampling_ms) =
            timed(|| self.generator.run(self.tokenizer, &requests, &self.stop, self.seed))?;
        Ok(Sampled { asked: self.asked(draws), of, sampling_ms })
    }

    /// All that decides, with the weights, what the answers are.
    fn asked(&self, draws: &Draws) -> Value {
        let AlignOptions { sampling, max_new_tokens, num_samples, stop, .. } = self.options;
        let prompts: Vec<&[u32]> = draws.rows.iter().map(|row| &*self.trees[*row].prompt).collect();
        json!({
            "prompts": prompts,
            "first": draws.first,
            "seed": self.seed,
            // As text, which is read back as it was written.
            "sampling": format!("{sampling:?}"),
            "max_new_tokens": max_new_tokens,
            "num_samples": num_samples,
            "stop": stop,
        })
    }
}

/// What a call returns, and the milliseconds that it took.
fn timed<T>(call: impl FnOnce() -> Result<T>) -> Result<(T, Value)> {
    let started = Instant::now();
    Ok((call()?, milliseconds(started)))
}

fn response_metrics(answers: &[Vec<Response>]) -> Map<String, Value> {
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
