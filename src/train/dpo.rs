//! Offline preference training: the pairs are given.

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

/// What these rows need of the device.
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

/// Training that is ready to begin: plans recorded, memory taken.
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
    /// Encodes the pairs and records the plans. On a measuring `Gpu` this is the dry run.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for an option out of its range; what is wrong with the rows; memory errors.
    pub async fn new(
        policy: Policy,
        pairs: &[Pair],
        train: &TrainOptions,
        options: &DpoOptions,
    ) -> Result<DpoRun> {
        DpoRun::of_rows(policy, numbered(pairs), train, options).await
    }

    /// The same of pairs that are read one by one, see [`pairs`](crate::data::rows::pairs): they may be more than memory
    /// holds.
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
            let why = "xpo needs pairs of which the reference drew one response, which online training draws";
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

    /// Tells loss and accuracy of held-out pairs after every `every` steps, and at the end, in `run`. Pairs that are longer than
    /// what is trained on are left out.
    ///
    /// # Errors
    /// As [`DpoRun::of_rows`]; [`crate::Error::Config`] for `every` 0.
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

    /// How many held-out rows are kept, of how many that were read; `None` where there are none.
    pub fn held_out_rows(&self) -> Option<(usize, usize)> {
        Some(self.held_out.as_ref()?.kept_of_read())
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> usize {
        total_steps(&self.train, self.rows.len(), 1)
    }

    /// To be driven step by step, without a folder.
    ///
    /// # Errors
    /// What the device reports.
    pub fn trainer(self) -> Result<Trainer<'static>> {
        let DpoRun { policy, train, options, rows, trainer, optimiser, moving, held_out } = self;
        let known = vec![None; rows.len()];
        let method = GivenPairs { trainer, options, known };
        let trainer = Trainer::new(policy, train, rows, optimiser, Box::new(method))?;
        Ok(trainer.with_moving_reference(moving).with_held_out(held_out))
    }

    /// Trains to the end, in the folder of the options; returns where the model or adapter was saved.
    ///
    /// # Errors
    /// What is wrong with the folder, or the checkpoint in it; see [`Trainer::step`]; [`crate::Error::SelfCheck`] where nothing
    /// was learnt.
    pub async fn run(self, sources: Sources, control: Control<'_>) -> Result<PathBuf> {
        run(self.trainer()?, sources, control).await
    }
}

/// Preferences that are in the dataset.
struct GivenPairs {
    trainer: PairTrainer,
    options: DpoOptions,
    /// The reference's log-probabilities of a row's responses: computed once and kept, until it moves.
    known: Vec<Option<[f32; 2]>>,
}

/// A pair of the dataset, whose label is certain.
fn given(tree: Tree, reference: [f32; 2]) -> LabelledPair {
    LabelledPair { tree, reference, label: 1.0, by_reference: [false; 2] }
}

impl GivenPairs {
    /// Computes what is not known of these rows yet.
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
