//! Offline preference training on given pairs.

use std::path::PathBuf;
use web_time::Instant;

use super::batches::total_steps;
use super::evaluation::HeldOutPairs;
use super::identity::{Command, RunIdentity};
use super::kernels::use_kernels_of_checkpoint;
use super::moving_reference::MovingReference;
use super::options::{DpoOptions, TrainOptions};
use super::pair_step::LabelledPair;
use super::pair_trainer::PairTrainer;
use super::policy::Policy;
use super::report::{HeldOutReport, PreferenceReport, ResponseReport};
use super::rows::{EncodedRows, numbered};
use super::run::{Sources, run};
use super::trainer::{Control, Learnt, Method, Step, Trainer};
use crate::data::packing::Tree;
use crate::data::rows::Pair;
use crate::error::{Error, Result};
use crate::gpu::Arena;
use crate::model::Model;
use crate::model::rater::check_writes;
use crate::optim::Optimiser;
use crate::task::Task;

/// Records the plans for these rows.
pub(super) async fn plans(
    model: &Model,
    reference: &Model,
    rows: &EncodedRows,
    train: &TrainOptions,
    options: &DpoOptions,
) -> Result<(PairTrainer, Optimiser)> {
    train.check_reference_is_used(&options.loss)?;
    let capacity = rows.largest_batch(train.batch_size);
    PairTrainer::new(model, reference, train, &options.loss, capacity, None, &Arena::new()).await
}

/// Offline training that is ready to start: plans recorded, memory allocated.
pub struct DpoRun {
    policy: Policy,
    train: TrainOptions,
    options: DpoOptions,
    rows: EncodedRows,
    trainer: PairTrainer,
    optimiser: Optimiser,
    moving: Option<MovingReference>,
    held_out: Option<HeldOutPairs>,
}

impl DpoRun {
    /// Encodes the pairs and records the plans. On a measuring `Gpu`, this is the dry run.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for an option out of range; errors in the rows; memory errors.
    pub async fn new(
        policy: Policy,
        pairs: &[Pair],
        train: &TrainOptions,
        options: &DpoOptions,
    ) -> Result<DpoRun> {
        DpoRun::of_rows(policy, numbered(pairs), train, options).await
    }

    /// The same for pairs that are read one by one (see [`pairs`](crate::data::rows::pairs)), which may be more than
    /// fit into memory.
    ///
    /// # Errors
    /// As [`DpoRun::new`].
    pub async fn of_rows(
        policy: Policy,
        pairs: impl IntoIterator<Item = Result<Pair>>,
        train: &TrainOptions,
        options: &DpoOptions,
    ) -> Result<DpoRun> {
        train.check()?;
        check_writes(&policy.model)?;
        if options.loss.needs_reference_samples() {
            let why = "xpo needs pairs with one response of the reference model: use it in online training";
            return Err(Error::config("loss", why));
        }
        use_kernels_of_checkpoint(policy.model.gpu(), train)?;
        let rows = EncodedRows::given(&policy, pairs, options.append_eos, train)?;
        let reference = policy.reference(train).await?;
        let (trainer, optimiser) = plans(&policy.model, &reference, &rows, train, options).await?;
        let moving = MovingReference::asked_for(&policy.model, &reference, train).await?;
        let (train, options, held_out) = (train.clone(), options.clone(), None);
        Ok(DpoRun { policy, train, options, rows, trainer, optimiser, moving, held_out })
    }

    /// Enables an evaluation on held-out pairs (loss and accuracy) after every `every` steps and at the end, in `run`.
    /// Pairs above the length limits of training are skipped.
    ///
    /// # Errors
    /// As [`DpoRun::of_rows`]; [`crate::Error::Config`] for `every` = 0.
    pub fn with_held_out(
        self,
        pairs: impl IntoIterator<Item = Result<Pair>>,
        every: Option<usize>,
    ) -> Result<DpoRun> {
        let held_out = HeldOutPairs::new(&self.policy, pairs, self.options.append_eos, &self.train, every)?;
        Ok(DpoRun { held_out: Some(held_out), ..self })
    }

    /// The encoded rows.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }

    /// The number of held-out rows kept, and of those read; `None` without held-out rows.
    pub fn held_out_rows(&self) -> Option<(usize, usize)> {
        Some(self.held_out.as_ref()?.kept_of_read())
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
        let DpoRun { policy, train, options, rows, trainer, optimiser, moving, held_out } = self;
        let known = vec![None; rows.len()];
        let method = GivenPairs { trainer, options, known };
        let trainer = Trainer::new(policy, train, rows, optimiser, Box::new(method))?;
        Ok(trainer.with_moving_reference(moving).with_held_out(held_out))
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

/// Training on the preference pairs of the dataset.
struct GivenPairs {
    trainer: PairTrainer,
    options: DpoOptions,
    /// The reference model's log-probabilities of the responses of each row, cached until the reference moves.
    known: Vec<Option<[f32; 2]>>,
}

/// A pair of the dataset, with a hard label.
fn given(tree: Tree, reference: [f32; 2]) -> LabelledPair {
    LabelledPair { tree, reference, label: 1.0, by_reference: [false; 2] }
}

impl GivenPairs {
    /// Computes the missing reference log-probabilities of these rows.
    async fn know(&mut self, rows: &EncodedRows, drawn: &[usize]) -> Result<()> {
        let mut new: Vec<usize> = drawn.iter().copied().filter(|row| self.known[*row].is_none()).collect();
        new.sort_unstable();
        new.dedup();
        let trees = new.iter().map(|row| rows.tree(*row)).collect::<Result<Vec<_>>>()?;
        for (row, reference) in new.iter().zip(self.trainer.reference(&trees).await?) {
            self.known[*row] = Some(reference);
        }
        Ok(())
    }
}

impl Method for GivenPairs {
    fn command(&self) -> Command {
        Command::Dpo
    }

    fn identity(&self, common: RunIdentity) -> Result<RunIdentity> {
        Ok(common.with_completions(self.options.append_eos).with_loss(&self.options.loss))
    }

    fn reference_moved(&mut self) {
        self.known.fill(None);
    }

    fn held_out<'t>(&'t mut self, rows: &'t EncodedRows) -> Task<'t, Result<Option<HeldOutReport>>> {
        Box::pin(async move {
            let trees = (0..rows.len()).map(|row| rows.tree(row)).collect::<Result<Vec<Tree>>>()?;
            let trees: Vec<Tree> = trees.into_iter().filter(|tree| self.trainer.holds(tree)).collect();
            if trees.is_empty() {
                return Ok(None);
            }
            let reference = self.trainer.reference(&trees).await?;
            let pairs: Vec<LabelledPair> =
                trees.into_iter().zip(reference).map(|(tree, reference)| given(tree, reference)).collect();
            let learnt = self.trainer.learn(&pairs, &self.options.loss).await?;
            let PreferenceReport { accuracies, margins, .. } = learnt.preference();
            Ok(Some(HeldOutReport { loss: learnt.loss(), accuracies, margins, pairs: pairs.len() }))
        })
    }

    fn learn<'t>(&'t mut self, step: &'t mut Step<'_, '_>) -> Task<'t, Result<Learnt>> {
        Box::pin(async move {
            step.begin("learning");
            let drawn = step.batches.draws(step.done).rows;
            let started = Instant::now();
            self.know(step.rows, &drawn).await?;
            step.spent("reference", started);
            let pair = |row: &usize| {
                let reference = self.known[*row].expect("computed above");
                Ok(given(step.rows.tree(*row)?, reference))
            };
            let pairs = drawn.iter().map(pair).collect::<Result<Vec<LabelledPair>>>()?;
            let learnt = self.trainer.learn(&pairs, &self.options.loss).await?;
            learnt.times().iter().for_each(|(phase, ms)| step.phases.add(phase, *ms));
            let eos = step.policy.tokenizer.eos_ids();
            let ending = EncodedRows::ending_with(pairs.iter().map(|pair| &pair.tree), eos);
            Ok(Learnt {
                loss: Some(learnt.loss()),
                preference: Some(learnt.preference()),
                gradient: None,
                policy: Some(learnt.policy()),
                entropy: Some(learnt.entropy()),
                responses: ResponseReport { mean_length: None, contain_eos_token: Some(ending) },
                judging: None,
                pairs: Vec::new(),
                ratings: Vec::new(),
                tokens: learnt.tokens(),
            })
        })
    }
}
