//! Offline preference training: the pairs are given.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use super::identity::{Command, RunIdentity};
use super::kernels::use_kernels_of_checkpoint;
use super::options::{DpoOptions, TrainOptions};
use super::pair_step::LabelledPair;
use super::pair_trainer::PairTrainer;
use super::policy::Policy;
use super::rows::EncodedRows;
use super::session::{Control, Session, Sources, StepRecord, milliseconds};
use super::total_steps;
use crate::data::rows::Pair;
use crate::error::Result;
use crate::gpu::Arena;
use crate::model::Model;
use crate::optim::Optimiser;
use crate::preference::Objective;

/// What these rows need of the device.
pub(super) fn plans(
    model: &Model,
    reference: &Model,
    rows: &EncodedRows,
    train: &TrainOptions,
    options: &DpoOptions,
) -> Result<(PairTrainer, Optimiser)> {
    let capacity = rows.largest_batch(train.batch_size);
    PairTrainer::new(model, reference, train, &options.loss, capacity, &Arena::new())
}

/// A run that is ready to begin: plans recorded, memory taken.
pub struct DpoRun {
    policy: Policy,
    train: TrainOptions,
    options: DpoOptions,
    rows: EncodedRows,
    trainer: PairTrainer,
    optimiser: Optimiser,
}

impl DpoRun {
    /// Encodes the pairs and records the plans. On a measuring `Gpu` this is the dry run.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for an option out of its range; what is wrong with the rows; memory errors.
    pub fn new(policy: Policy, pairs: &[Pair], train: &TrainOptions, options: &DpoOptions) -> Result<DpoRun> {
        DpoRun::of_rows(policy, pairs.iter().cloned().map(Ok), train, options)
    }

    /// The same of pairs that are read one by one, see [`pairs`](crate::data::rows::pairs): they may be more than memory
    /// holds.
    ///
    /// # Errors
    /// As [`DpoRun::new`].
    pub fn of_rows(
        policy: Policy,
        pairs: impl IntoIterator<Item = Result<Pair>>,
        train: &TrainOptions,
        options: &DpoOptions,
    ) -> Result<DpoRun> {
        train.check()?;
        use_kernels_of_checkpoint(policy.model.gpu(), train)?;
        let limits = train.length_limits(policy.model.architecture().context);
        let rows =
            EncodedRows::encode(&policy.encoder(), pairs, options.append_eos, limits, &train.output_dir)?;
        let (trainer, optimiser) = plans(&policy.model, &policy.reference(train)?, &rows, train, options)?;
        Ok(DpoRun { policy, train: train.clone(), options: options.clone(), rows, trainer, optimiser })
    }

    /// The encoded rows.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> usize {
        total_steps(&self.train, self.rows.len())
    }

    /// Trains; returns where the model or adapter was saved.
    pub fn run(self, sources: Sources, control: Control<'_>) -> Result<PathBuf> {
        let total = self.total_steps();
        let DpoRun { policy, train, options, rows, trainer, optimiser } = self;
        let identity = RunIdentity::new(Command::Dpo, &policy, &train, &rows, total)?
            .with_completions(options.append_eos)
            .with_loss(&options.loss);
        let steps = (total, rows.len());
        let mut session =
            Session::begin(&policy.model, optimiser, &train, sources, identity, steps, control)?;
        session.warn_of_rows(&rows)?;
        let done = learn(&policy, &rows, &trainer, &options.loss, &mut session);
        session.end(done)
    }
}

/// All steps that are left.
fn learn(
    policy: &Policy,
    rows: &EncodedRows,
    trainer: &PairTrainer,
    loss: &Objective,
    session: &mut Session<'_>,
) -> Result<()> {
    // Reference log-probabilities are computed once a pair and kept.
    let mut known: Vec<Option<[f32; 2]>> = vec![None; rows.len()];
    while !session.is_done() {
        let drawn = session.begin_step().rows;
        session.phase("learning");
        let started = Instant::now();
        let mut new: Vec<usize> = drawn.iter().copied().filter(|r| known[*r].is_none()).collect();
        new.sort_unstable();
        new.dedup();
        let new_trees = new.iter().map(|row| rows.tree(*row)).collect::<Result<Vec<_>>>()?;
        for (row, reference) in new.iter().zip(trainer.reference(&new_trees)?) {
            known[*row] = Some(reference);
        }
        let reference_ms = milliseconds(started);
        let pair = |row: &usize| {
            let reference = known[*row].expect("computed above");
            Ok(LabelledPair { tree: rows.tree(*row)?, reference, label: 1.0, by_reference: [false; 2] })
        };
        let pairs = drawn.iter().map(pair).collect::<Result<Vec<LabelledPair>>>()?;
        let learnt = trainer.learn(&pairs, loss)?;
        let mut metrics = learnt.metrics();
        metrics.extend(session.update(learnt.loss())?);
        let ending = EncodedRows::ending_with(pairs.iter().map(|p| &p.tree), policy.tokenizer.eos_ids());
        metrics.insert("val/contain_eos_token".into(), json!(ending));
        metrics.insert("time/reference_ms".into(), reference_ms);
        session.end_step(StepRecord {
            metrics,
            pairs: Vec::new(),
            loss: Some(learnt.loss()),
            margin: Some(learnt.margin()),
            judge_win: None,
            tokens: learnt.tokens(),
            online: None,
        })?;
    }
    Ok(())
}
