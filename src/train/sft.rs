//! Supervised fine-tuning: next-token training on completions.

use std::path::PathBuf;

use serde_json::{Map, json};

use super::identity::{Command, RunIdentity};
use super::kernels::use_kernels_of_checkpoint;
use super::options::TrainOptions;
use super::policy::Policy;
use super::rows::EncodedRows;
use super::session::{Control, Session, Sources, StepRecord};
use super::sft_step::{SftResult, SftStep};
use super::total_steps;
use crate::data::packing::Tree;
use crate::data::rows::Completion;
use crate::error::Result;
use crate::gpu::Arena;
use crate::model::Model;
use crate::model::stream::Capacity;
use crate::optim::Optimiser;

/// What these rows need of the device.
pub(super) fn plans(model: &Model, rows: &EncodedRows, train: &TrainOptions) -> Result<(SftStep, Optimiser)> {
    let (gpu, arena) = (model.gpu(), Arena::new());
    let capacity = rows.largest_batch(train.batch_size);
    let step = SftStep::new(gpu, model, capacity, train.gradient_checkpointing, &arena)?;
    let optimiser = Optimiser::new(gpu, model.trained(), train.optimiser, train.max_grad_norm, &arena)?;
    Ok((step, optimiser))
}

/// A run that is ready to begin: plans recorded, memory taken.
pub struct SftRun {
    policy: Policy,
    train: TrainOptions,
    append_eos: bool,
    rows: EncodedRows,
    step: SftStep,
    optimiser: Optimiser,
}

impl SftRun {
    /// Encodes the rows and records the plans. On a measuring `Gpu` this is the dry run.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for an option out of its range; what is wrong with the rows; memory errors.
    pub fn new(
        policy: Policy,
        rows: &[Completion],
        train: &TrainOptions,
        append_eos: bool,
    ) -> Result<SftRun> {
        SftRun::of_rows(policy, rows.iter().cloned().map(Ok), train, append_eos)
    }

    /// The same of rows that are read one by one, see [`completions`](crate::data::rows::completions): they may be more than
    /// memory holds.
    ///
    /// # Errors
    /// As [`SftRun::new`].
    pub fn of_rows(
        policy: Policy,
        rows: impl IntoIterator<Item = Result<Completion>>,
        train: &TrainOptions,
        append_eos: bool,
    ) -> Result<SftRun> {
        train.check()?;
        use_kernels_of_checkpoint(policy.model.gpu(), train)?;
        let limits = train.length_limits(policy.model.architecture().context);
        let rows = EncodedRows::encode(&policy.encoder(), rows, append_eos, limits, &train.output_dir)?;
        let (step, optimiser) = plans(&policy.model, &rows, train)?;
        Ok(SftRun { policy, train: train.clone(), append_eos, rows, step, optimiser })
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
        let SftRun { policy, train, append_eos, rows, step, optimiser } = self;
        let identity =
            RunIdentity::new(Command::Sft, &policy, &train, &rows, total)?.with_completions(append_eos);
        let steps = (total, rows.len());
        let mut session =
            Session::begin(&policy.model, optimiser, &train, sources, identity, steps, control)?;
        session.warn_of_rows(&rows)?;
        let done = learn(&policy, &rows, &step, train.batch_size, &mut session);
        session.end(done)
    }
}

/// All steps that are left.
fn learn(
    policy: &Policy,
    rows: &EncodedRows,
    step: &SftStep,
    batch_size: usize,
    session: &mut Session<'_>,
) -> Result<()> {
    while !session.is_done() {
        session.phase("learning");
        let drawn = session.begin_step().rows;
        let rows: Vec<Tree> = drawn.into_iter().map(|row| rows.tree(row)).collect::<Result<_>>()?;
        let weight = 1.0 / rows.iter().map(Tree::targets).sum::<usize>() as f32;
        let (mut sum, mut metrics) = (SftResult::default(), Map::new());
        for micro in step.capacity().batches(&rows, batch_size, Capacity::of_tree)? {
            let (result, times) = step.run(micro, weight)?;
            sum.nll += result.nll;
            sum.entropy += result.entropy;
            sum.tokens += result.tokens;
            for (name, ms) in times {
                let entry = metrics.entry(format!("time/{name}_ms")).or_insert(json!(0.0));
                *entry = json!(entry.as_f64().unwrap_or(0.0) + ms);
            }
        }
        let loss = sum.nll / sum.tokens as f64;
        metrics.extend(session.update(loss)?);
        let mut put = |key: &str, value| metrics.insert(key.into(), value);
        put("loss", json!(loss));
        put("objective/entropy", json!(sum.entropy / sum.tokens as f64));
        let ending = EncodedRows::ending_with(&rows, policy.tokenizer.eos_ids());
        put("val/contain_eos_token", json!(ending));
        session.end_step(StepRecord {
            metrics,
            pairs: Vec::new(),
            loss: Some(loss),
            margin: None,
            judge_win: None,
            tokens: rows.iter().map(Tree::rows).sum(),
            online: None,
        })?;
    }
    Ok(())
}
