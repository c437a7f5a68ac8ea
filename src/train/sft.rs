//! Supervised fine-tuning: next-token prediction on completions.

use std::path::PathBuf;

use super::batches::total_steps;
use super::identity::{Command, RunIdentity};
use super::kernels::use_kernels_of_checkpoint;
use super::options::TrainOptions;
use super::policy::Policy;
use super::report::{Phases, ResponseReport};
use super::rows::{EncodedRows, numbered};
use super::run::{Sources, run};
use super::sft_step::{SftResult, SftStep};
use super::trainer::{Control, Learnt, Method, Step, Trainer};
use crate::collective::Ranks;
use crate::data::packing::Tree;
use crate::data::rows::Completion;
use crate::error::Result;
use crate::gpu::Arena;
use crate::model::Model;
use crate::model::rater::check_writes;
use crate::model::stream::Capacity;
use crate::optim::Optimiser;
use crate::task::Task;

/// Records the plans for these rows.
pub(super) async fn plans(
    model: &Model,
    rows: &EncodedRows,
    train: &TrainOptions,
) -> Result<(SftStep, Optimiser)> {
    let (gpu, arena) = (model.gpu(), Arena::new());
    let capacity = rows.largest_batch(train.batch_size);
    let step = SftStep::new(gpu, model, capacity, train.gradient_checkpointing, &arena).await?;
    let optimiser = train.optimiser_of(model, &arena).await?;
    Ok((step, optimiser))
}

/// Supervised fine-tuning that is ready to start: plans recorded, memory allocated.
pub struct SftRun {
    policy: Policy,
    train: TrainOptions,
    append_eos: bool,
    rows: EncodedRows,
    step: SftStep,
    optimiser: Optimiser,
}

impl SftRun {
    /// Encodes the rows and records the plans. On a measuring `Gpu`, this is the dry run.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for an option out of range; errors in the rows; memory errors.
    pub async fn new(
        policy: Policy,
        rows: &[Completion],
        train: &TrainOptions,
        append_eos: bool,
    ) -> Result<SftRun> {
        SftRun::of_rows(policy, numbered(rows), train, append_eos).await
    }

    /// The same for rows that are read one by one (see [`completions`](crate::data::rows::completions)), which may be
    /// more than fit into memory.
    ///
    /// # Errors
    /// As [`SftRun::new`].
    pub async fn of_rows(
        policy: Policy,
        rows: impl IntoIterator<Item = Result<Completion>>,
        train: &TrainOptions,
        append_eos: bool,
    ) -> Result<SftRun> {
        train.check()?;
        check_writes(&policy.model)?;
        use_kernels_of_checkpoint(policy.model.gpu(), train)?;
        let rows = EncodedRows::given(&policy, rows, append_eos, train)?;
        let (step, optimiser) = plans(&policy.model, &rows, train).await?;
        Ok(SftRun { policy, train: train.clone(), append_eos, rows, step, optimiser })
    }

    /// The encoded rows.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }

    /// The number of steps of the whole run.
    pub fn total_steps(&self) -> usize {
        total_steps(&self.train, self.rows.len(), 1)
    }

    /// Returns a trainer to be driven step by step, without a folder.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn trainer(self) -> Result<Trainer<'static>> {
        let SftRun { policy, train, append_eos, rows, step, optimiser } = self;
        let (batch_size, ranks) = (train.batch_size, train.ranks.clone());
        let method = Completions { step, batch_size, append_eos, ranks };
        Trainer::new(policy, train, rows, optimiser, Box::new(method))
    }

    /// Trains to the end, in the folder of the options. Returns the folder of the saved model or adapter.
    ///
    /// # Errors
    /// Errors of the folder or of a checkpoint in it; see [`Trainer::step`]; [`crate::Error::SelfCheck`] if nothing was
    /// learnt.
    pub async fn run(self, sources: Sources, control: Control<'_>) -> Result<PathBuf> {
        run(self.trainer()?, sources, control).await
    }
}

/// Next-token prediction on completions.
struct Completions {
    step: SftStep,
    batch_size: usize,
    append_eos: bool,
    ranks: Ranks,
}

impl Completions {
    /// Adds the gradient of `weight` times the summed loss of the tokens of these trees, in micro-batches.
    async fn run(&self, trees: &[Tree], weight: f32, phases: &mut Phases) -> Result<Vec<SftResult>> {
        let mut results = Vec::new();
        for micro in self.step.capacity().batches(trees, self.batch_size, Capacity::of_tree)? {
            let (result, times) = self.step.run(micro, weight).await?;
            results.push(result);
            times.into_iter().for_each(|(phase, ms)| phases.add(phase, ms));
        }
        Ok(results)
    }
}

impl Method for Completions {
    fn command(&self) -> Command {
        Command::Sft
    }

    fn identity(&self, common: RunIdentity) -> Result<RunIdentity> {
        Ok(common.with_completions(self.append_eos))
    }

    fn learn<'t>(&'t mut self, step: &'t mut Step<'_, '_>) -> Task<'t, Result<Learnt>> {
        Box::pin(async move {
            step.begin("learning");
            let drawn = step.batches.draws(step.done).rows;
            let trees: Vec<Tree> = drawn.into_iter().map(|row| step.rows.tree(row)).collect::<Result<_>>()?;
            let weight = 1.0 / trees.iter().map(Tree::targets).sum::<usize>() as f32;
            let mine = self.run(self.ranks.mine(&trees), weight, &mut step.phases).await;
            let mut sum = SftResult::default();
            for result in self.ranks.join(mine).await? {
                sum.nll += result.nll;
                sum.entropy += result.entropy;
                sum.tokens += result.tokens;
            }
            let eos = step.policy.tokenizer.eos_ids();
            let responses = ResponseReport {
                mean_length: None,
                contain_eos_token: Some(EncodedRows::ending_with(&trees, eos)),
            };
            Ok(Learnt {
                loss: Some(sum.nll / sum.tokens as f64),
                preference: None,
                gradient: None,
                policy: None,
                entropy: Some(sum.entropy / sum.tokens as f64),
                responses,
                judging: None,
                pairs: Vec::new(),
                ratings: Vec::new(),
                tokens: trees.iter().map(Tree::rows).sum(),
            })
        })
    }
}
