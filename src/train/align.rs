//! Online AI feedback: prompts → samples of the current policy → annotator → loss → update (Guo et al. 2024,
//! arXiv 2402.04792, see the crate's documentation).

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::annotation::{Annotation, Choice, Patience, annotate_patiently};
use super::checkpoint::STATE;
use super::identity::{Command, RunIdentity};
use super::kernels::use_kernels_of_checkpoint;
use super::options::{AlignOptions, TrainOptions};
use super::pair_step::LabelledPair;
use super::pair_trainer::PairTrainer;
use super::policy::Policy;
use super::rows::{EncodedRows, LengthLimits};
use super::sampler::{Sampled, Sampler, response_metrics};
use super::session::{Control, Session, Sources, StepRecord, milliseconds, timed};
use super::state::OnlineState;
use super::total_steps;
use crate::annotate::Annotator;
use crate::data::packing::Tree;
use crate::data::rows::Prompt;
use crate::data::tokenizer::StopMatcher;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Generator, slots_for};
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
    let longest = rows.table().longest_prompt();
    let capacity = Capacity {
        tokens: rows.largest_batch(batch).tokens + batch * 2 * (max_new - 1),
        targets: batch * 2 * max_new,
        sequences: batch * 2,
    };
    let arena = Arena::new();
    let (trainer, optimiser) = PairTrainer::new(model, reference, train, &options.loss, capacity, &arena)?;
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
    let all = train.max_length.unwrap_or(context).min(context);
    if max_new >= all {
        let why = match all < context {
            true => format!("{max_new} leaves no room for a prompt: max-length is {all}"),
            false => {
                format!("{max_new} leaves no room for a prompt: the model takes {context} tokens in all")
            }
        };
        return Err(Error::config("max-new-tokens", why));
    }
    Ok(train.max_prompt_length.unwrap_or(usize::MAX).min(all - max_new))
}

/// A run that is ready to begin: plans recorded, memory taken.
pub struct AlignRun {
    policy: Policy,
    train: TrainOptions,
    options: AlignOptions,
    rows: EncodedRows,
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
        AlignRun::of_rows(policy, prompts.iter().cloned().map(Ok), train, options)
    }

    /// The same of prompts that are read one by one, see [`prompts`](crate::data::rows::prompts): they may be more than
    /// memory holds.
    ///
    /// # Errors
    /// As [`AlignRun::new`].
    pub fn of_rows(
        policy: Policy,
        prompts: impl IntoIterator<Item = Result<Prompt>>,
        train: &TrainOptions,
        options: &AlignOptions,
    ) -> Result<AlignRun> {
        train.check()?;
        use_kernels_of_checkpoint(policy.model.gpu(), train)?;
        options.check(train)?;
        let max_prompt = prompt_limit(policy.model.architecture().context, train, options)?;
        let limits = LengthLimits { prompt: max_prompt, whole: usize::MAX };
        let rows = EncodedRows::encode(&policy.encoder(), prompts, false, limits, &train.output_dir)?;
        let (model, eos) = (&policy.model, policy.tokenizer.eos_ids());
        let plans = plans(model, &policy.reference(train)?, &rows, eos, train, options)?;
        let Plans { trainer, generator, optimiser } = plans;
        let (train, options) = (train.clone(), options.clone());
        Ok(AlignRun { policy, train, options, rows, trainer, generator, optimiser })
    }

    /// The encoded prompts.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> usize {
        total_steps(&self.train, self.rows.len())
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
        let AlignRun { policy, train, options, rows, trainer, generator, optimiser } = self;
        let ahead = options.async_level > 0;
        if ahead && annotator.remote().is_none() {
            let why = format!(
                "is 1, but the annotator, {}, leaves nothing to wait for: leave it out",
                annotator.name()
            );
            return Err(Error::config("async-level", why));
        }
        let total = total_steps(&train, rows.len());
        let identity = RunIdentity::new(Command::Align, &policy, &train, &rows, total)?
            .with_loss(&options.loss)
            .with_feedback(&options, annotator)?;
        let steps = (total, rows.len());
        let mut session =
            Session::begin(&policy.model, optimiser, &train, sources, identity, steps, control)?;
        session.warn_of_rows(&rows)?;
        let sampler = Sampler {
            generator: &generator,
            tokenizer: &policy.tokenizer,
            rows: &rows,
            options: &options,
            stop: StopMatcher::new(options.stop.iter().cloned()),
            seed: train.seed,
        };
        let told = false;
        let mut feedback = Feedback { options: &options, rows: &rows, trainer, sampler, told };
        let steps = feedback.steps(annotator, &mut session);
        session.end(steps)
    }
}

/// The steps of online training.
struct Feedback<'a> {
    options: &'a AlignOptions,
    rows: &'a EncodedRows,
    trainer: PairTrainer,
    sampler: Sampler<'a>,
    /// Whether the user knows of an annotator that prefers a position.
    told: bool,
}

impl Feedback<'_> {
    /// All steps that are left.
    fn steps(&mut self, annotator: &mut dyn Annotator, session: &mut Session<'_>) -> Result<()> {
        while !session.is_done() {
            self.step(annotator, session)?;
        }
        let verdicts = session.online().map(|online| online.verdicts.clone()).unwrap_or_default();
        if let Some(text) = verdicts.endless(self.options.max_new_tokens) {
            session.note(text)?;
        }
        Ok(())
    }

    /// Samples, feedback, update.
    fn step(&mut self, annotator: &mut dyn Annotator, session: &mut Session<'_>) -> Result<()> {
        let draws = session.begin_step();
        session.phase("sampling");
        let OnlineState { mut verdicts, sampled } = session.online().cloned().unwrap_or_default();
        let answers = match sampled {
            Some(kept) => {
                if let Some(why) = self.sampler.fault(&kept, &draws)? {
                    let path = session.resumed().unwrap_or(Path::new("")).join(STATE);
                    let why = format!(
                        "the answers kept for the next step are damaged ({why}): resume from another checkpoint"
                    );
                    return Err(Error::file(path, why));
                }
                kept
            }
            None => self.sampler.answer(&draws)?,
        };
        let texts = draws.rows.iter().map(|row| self.rows.text(*row)).collect::<Result<Vec<_>>>()?;
        let prompts: Vec<&str> = texts.iter().map(String::as_str).collect();
        session.phase("annotating");
        let next = session.next_draws().filter(|_| self.options.async_level > 0);
        let elsewhere = annotator.remote().is_some();
        let patience = Patience { retry: elsewhere && verdicts.any(), interrupted: session.interrupted() };
        let k = self.options.num_samples;
        let judge = |annotator: &mut dyn Annotator| {
            timed(|| annotate_patiently(annotator, &prompts, &answers.of, k, patience))
        };
        let mut ahead = None;
        let (annotation, annotation_ms) = match annotator.remote().zip(next) {
            None => judge(annotator)?,
            Some((remote, next)) => std::thread::scope(|scope| {
                let judging = scope.spawn(|| judge(remote));
                ahead = Some(self.sampler.answer(&next)?);
                judging.join().unwrap_or_else(|panic| resume_unwind(panic))
            })?,
        };
        for failure in &annotation.failures {
            session.warn(&format!("asked again after a failure: {failure}"));
        }
        verdicts.add(&annotation.counts, &answers.of);
        verdicts.check(self.options.max_invalid_ratio, &annotator.name(), &annotation)?;
        if let Some(text) = verdicts.position_bias().filter(|_| !self.told) {
            self.told = true;
            session.note(text)?;
        }

        session.phase("learning");
        let before = Instant::now();
        let pairs = self.pairs(&draws.rows, &answers, &annotation)?;
        let reference_ms = milliseconds(before);
        let mut metrics = Map::new();
        let learnt = match pairs.is_empty() {
            true => None,
            false => Some(self.trainer.learn(&pairs, &self.options.loss)?),
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
        let latency = annotation_ms / annotation.counts.judged.max(1) as f64;
        metrics.insert("judge/latency_ms".into(), json!(latency));
        metrics.insert("time/sampling_ms".into(), json!(answers.sampling_ms));
        metrics.insert("time/annotation_ms".into(), json!(annotation_ms));
        metrics.insert("time/reference_ms".into(), reference_ms);
        let tokens: usize = answers.of.iter().flatten().map(|a| a.token_ids.len()).sum();
        session.end_step(StepRecord {
            metrics,
            pairs: annotation.rows(session.step() + 1, &prompts, &answers.of),
            loss: learnt.as_ref().map(|l| l.loss()),
            margin: learnt.as_ref().map(|l| l.margin()),
            judge_win: annotation.counts.first_ratio(),
            tokens: tokens + learnt.as_ref().map_or(0, |l| l.tokens()),
            online: Some(OnlineState { verdicts, sampled: ahead }),
        })
    }

    /// The step's pairs, with what the reference makes of them.
    fn pairs(&self, rows: &[usize], answers: &Sampled, annotation: &Annotation) -> Result<Vec<LabelledPair>> {
        let choices: Vec<(usize, &Choice)> =
            annotation.choices.iter().enumerate().filter_map(|(i, c)| Some((i, c.as_ref()?))).collect();
        let tree = |(i, c): &(usize, &Choice)| {
            let answer = |s: usize| answers.of[*i][s].token_ids.clone();
            Ok(Tree {
                prompt: self.rows.tree(rows[*i])?.prompt,
                responses: vec![answer(c.chosen), answer(c.rejected)],
            })
        };
        let trees = choices.iter().map(tree).collect::<Result<Vec<Tree>>>()?;
        let reference = self.trainer.reference(&trees)?;
        let label = |choice: &Choice| if self.options.soft_labels { choice.probability } else { 1.0 };
        let pairs = trees.into_iter().zip(reference).zip(&choices);
        Ok(pairs
            .map(|((tree, reference), (_, choice))| LabelledPair {
                tree,
                reference,
                label: label(choice),
                by_reference: [false; 2],
            })
            .collect())
    }
}
