//! `oaif align`: sets up online training and allocates its device memory.

use std::path::PathBuf;

use super::batches::total_steps;
use super::evaluation::Evaluation;
use super::kernels::use_kernels_of_checkpoint;
use super::moving_reference::MovingReference;
use super::online::{Learner, Online};
use super::options::{AlignOptions, TrainOptions};
use super::pair_trainer::PairTrainer;
use super::policy::Policy;
use super::policy_loss::OnlineLoss;
use super::policy_trainer::PolicyTrainer;
use super::rows::{EncodedRows, LengthLimits, numbered};
use super::run::{Sources, run};
use super::sampler::Sampler;
use super::trainer::{Control, Trainer};
use crate::data::rows::Prompt;
use crate::error::{Error, Result};
use crate::eval::responses::ResponseOptions;
use crate::generate::{GenerateOptions, Generator, slots_for};
use crate::gpu::Arena;
use crate::judge::queue::IntoJudgeQueue;
use crate::model::Model;
use crate::model::rater::check_writes;
use crate::model::stream::Capacity;
use crate::optim::Optimiser;
use crate::preference::Objective;

/// The plans and buffers of a run.
pub(super) struct Plans {
    learner: Learner,
    sampler: Sampler,
    optimiser: Optimiser,
}

/// Records the plans for these prompts.
pub(super) async fn plans(
    model: &Model,
    reference: &Model,
    rows: &EncodedRows,
    eos: &[u32],
    train: &TrainOptions,
    options: &AlignOptions,
) -> Result<Plans> {
    let (batch, max_new) = (train.batch_size, options.max_new_tokens);
    let longest = rows.table().longest_prompt();
    let capacity = |responses: usize| Capacity {
        tokens: rows.largest_batch(batch).tokens + batch * responses * (max_new - 1),
        targets: batch * responses * max_new,
        sequences: batch * responses,
    };
    let all = capacity(options.num_samples);
    let arena = Arena::new();
    let (learner, optimiser) = match &options.loss {
        OnlineLoss::Preference(loss) => {
            // Training uses two responses per prompt.
            let scored = (options.active > 1).then_some(all);
            let (trainer, optimiser) =
                PairTrainer::new(model, reference, train, loss, capacity(2), scored, &arena).await?;
            (Learner::Pairs { trainer: Box::new(trainer), loss: loss.clone() }, optimiser)
        }
        OnlineLoss::Policy(loss) => {
            let off_policy = options.async_level > 0;
            let (trainer, optimiser) =
                PolicyTrainer::new(model, reference, train, *loss, off_policy, all, &arena).await?;
            (Learner::Policy(Box::new(trainer)), optimiser)
        }
    };
    let mine = train.rows_of_step().div_ceil(train.ranks.size());
    let samples = mine * options.active * options.num_samples;
    let generate = GenerateOptions {
        sampling: options.sampling,
        max_new_tokens: max_new,
        max_prompt_tokens: longest,
        slots: slots_for(options.slots, samples),
        samples_per_prompt: options.num_samples,
        eos: eos.to_vec(),
    };
    // The loss may need responses of the reference model.
    let of_reference = match options.loss.preference().is_some_and(Objective::needs_reference_samples) {
        true => Some(Generator::new(model.gpu(), reference, generate.clone(), &arena).await?),
        false => None,
    };
    let generator = Generator::new(model.gpu(), model, generate, &arena).await?;
    let sampler = Sampler::new(generator, of_reference, options, train.seed);
    Ok(Plans { learner, sampler, optimiser })
}

/// The longest prompt that leaves room for a response.
pub(super) fn prompt_limit(context: usize, train: &TrainOptions, options: &AlignOptions) -> Result<usize> {
    let max_new = options.max_new_tokens;
    let all = train.max_length.unwrap_or(context).min(context);
    if max_new >= all {
        let why = match all < context {
            true => format!("{max_new} leaves no room for a prompt: max-length is {all}"),
            false => {
                format!("{max_new} leaves no room for a prompt: the model's context is {context} tokens")
            }
        };
        return Err(Error::config("max-new-tokens", why));
    }
    Ok(train.max_prompt_length.unwrap_or(usize::MAX).min(all - max_new))
}

/// Online training that is ready to start: plans recorded, memory allocated.
pub struct AlignRun {
    policy: Policy,
    train: TrainOptions,
    options: AlignOptions,
    rows: EncodedRows,
    learner: Learner,
    sampler: Sampler,
    optimiser: Optimiser,
    reference: Model,
    moving: Option<MovingReference>,
    evaluation: Option<Evaluation>,
}

impl AlignRun {
    /// Encodes the prompts and records the plans. On a measuring `Gpu`, this is the dry run.
    ///
    /// # Errors
    /// [`Error::Config`] for an option out of range, and for lengths that leave no room for a response; memory errors.
    pub async fn new(
        policy: Policy,
        prompts: &[Prompt],
        train: &TrainOptions,
        options: &AlignOptions,
    ) -> Result<AlignRun> {
        AlignRun::of_rows(policy, numbered(prompts), train, options).await
    }

    /// The same for prompts that are read one by one (see [`prompts`](crate::data::rows::prompts)), which may be more
    /// than fit into memory.
    ///
    /// # Errors
    /// As [`AlignRun::new`].
    pub async fn of_rows(
        policy: Policy,
        prompts: impl IntoIterator<Item = Result<Prompt>>,
        train: &TrainOptions,
        options: &AlignOptions,
    ) -> Result<AlignRun> {
        train.check()?;
        check_writes(&policy.model)?;
        use_kernels_of_checkpoint(policy.model.gpu(), train)?;
        options.check(train)?;
        let max_prompt = prompt_limit(policy.model.architecture().context, train, options)?;
        let limits = LengthLimits { prompt: max_prompt, whole: usize::MAX };
        let rows = EncodedRows::encode(&policy.encoder(), prompts, false, limits, train.folder())?;
        let (model, eos) = (&policy.model, policy.tokenizer.eos_ids());
        let reference = policy.reference(train).await?;
        let plans = plans(model, &reference, &rows, eos, train, options).await?;
        let moving = MovingReference::asked_for(model, &reference, train).await?;
        let Plans { learner, sampler, optimiser } = plans;
        let (train, options) = (train.clone(), options.clone());
        let evaluation = None;
        Ok(AlignRun {
            policy,
            train,
            options,
            rows,
            learner,
            sampler,
            optimiser,
            reference,
            moving,
            evaluation,
        })
    }

    /// Enables an evaluation on held-out prompts after every `every` steps and at the end, in [`AlignRun::run`]: the
    /// judge of the run compares the responses of the policy with those of the starting model; see
    /// [`EvaluationReport`](super::report::EvaluationReport).
    ///
    /// # Errors
    /// [`Error::Config`] if no prompt leaves room for a response, and for `every` = 0.
    pub async fn with_held_out(self, prompts: &[Prompt], every: Option<usize>) -> Result<AlignRun> {
        let options = ResponseOptions {
            sampling: self.options.sampling,
            max_new_tokens: self.options.max_new_tokens,
            stop: self.options.stop.clone(),
            slots: self.options.slots,
            seed: self.train.seed,
            first: 0,
        };
        // A moving reference is not the starting model.
        let start = match self.moving {
            Some(_) => self.policy.snapshot().await?,
            None => self.reference.clone(),
        };
        let evaluation =
            Evaluation::new(&self.policy, start, prompts, options, every, self.train.ranks.clone())?;
        Ok(AlignRun { evaluation: Some(evaluation), ..self })
    }

    /// The encoded prompts.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }

    /// The number of held-out rows kept, and of those read; `None` without held-out rows.
    pub fn held_out_rows(&self) -> Option<(usize, usize)> {
        Some(self.evaluation.as_ref()?.kept_of_read())
    }

    /// The number of steps of the whole run.
    pub fn total_steps(&self) -> usize {
        total_steps(&self.train, self.rows.len(), self.options.active)
    }

    /// Returns a trainer to be driven step by step, without a folder.
    ///
    /// # Errors
    /// [`Error::Config`] for an [`async_level`](AlignOptions::async_level) that the judge does not support; errors of
    /// the device.
    pub fn trainer<'a>(self, judge: impl IntoJudgeQueue<'a>) -> Result<Trainer<'a>> {
        let queue = judge.into_queue();
        let AlignRun {
            policy, train, options, rows, learner, sampler, optimiser, moving, evaluation, ..
        } = self;
        if options.async_level > 0 && !queue.is_remote() {
            let why = format!(
                "is {}, but the judge {} runs in this process and cannot work ahead: leave it out",
                options.async_level,
                queue.name()
            );
            return Err(Error::config("async-level", why));
        }
        let method = Online::new(learner, sampler, options, queue, train.ranks.clone());
        let trainer = Trainer::new(policy, train, rows, optimiser, Box::new(method))?;
        Ok(trainer.with_moving_reference(moving).with_evaluation(evaluation))
    }

    /// Trains to the end, in the folder of the options. Returns the folder of the saved model or adapter.
    ///
    /// # Errors
    /// As [`AlignRun::trainer`]; errors of the folder or of a checkpoint in it; see [`Trainer::step`];
    /// [`Error::SelfCheck`] if nothing was learnt.
    pub async fn run<'a>(
        self,
        judge: impl IntoJudgeQueue<'a>,
        sources: Sources,
        control: Control<'_>,
    ) -> Result<PathBuf> {
        run(self.trainer(judge)?, sources, control).await
    }
}
