//! `oaif reward`: trains a reward model on given preference pairs (Bradley and Terry 1952; Ouyang et al. 2022, arXiv
//! 2203.02155).

use std::path::{Path, PathBuf};

use super::batches::total_steps;
use super::evaluation::HeldOutPairs;
use super::identity::{Command, RunIdentity};
use super::kernels::use_kernels_of_checkpoint;
use super::options::{RewardOptions, TrainOptions};
use super::pair_step::PhaseTimes;
use super::policy::Policy;
use super::report::{HeldOutReport, PreferenceReport, ResponseReport};
use super::reward_step::{RatedPair, RatedResult, RewardStep};
use super::rows::{EncodedRows, numbered};
use super::run::{Sources, run};
use super::trainer::{Control, Learnt, Method, Step, Trainer};
use crate::collective::Ranks;
use crate::data::rows::Pair;
use crate::error::Result;
use crate::gpu::{Arena, Gpu};
use crate::model::Model;
use crate::model::rater::{capacity_of, rated};
use crate::model::stream::Capacity;
use crate::optim::Optimiser;
use crate::task::Task;

/// Records the plans for these rows.
pub(super) async fn plans(
    model: &Model,
    rows: &EncodedRows,
    train: &TrainOptions,
    options: &RewardOptions,
) -> Result<(RewardStep, Optimiser)> {
    let (gpu, arena) = (model.gpu(), Arena::new());
    // Each response is scored at its last token, which is an input token here.
    let Capacity { tokens, sequences, .. } = rows.largest_batch(train.batch_size);
    let capacity = Capacity { tokens: tokens + sequences, targets: sequences, sequences };
    let centring = options.center_rewards_coefficient;
    let step = RewardStep::new(gpu, model, centring, capacity, train.gradient_checkpointing, &arena).await?;
    let optimiser = train.optimiser_of(model, &arena).await?;
    Ok((step, optimiser))
}

/// Reward model training that is ready to start: plans recorded, memory allocated.
pub struct RewardRun {
    policy: Policy,
    train: TrainOptions,
    options: RewardOptions,
    rows: EncodedRows,
    step: RewardStep,
    optimiser: Optimiser,
    held_out: Option<HeldOutPairs>,
}

impl RewardRun {
    /// Encodes the pairs and records the plans. On a measuring `Gpu`, this is the dry run.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for an option out of range; errors in the rows; memory errors.
    pub async fn new(
        model: Policy,
        pairs: &[Pair],
        train: &TrainOptions,
        options: &RewardOptions,
    ) -> Result<RewardRun> {
        RewardRun::of_rows(model, numbered(pairs), train, options).await
    }

    /// The same for pairs that are read one by one (see [`pairs`](crate::data::rows::pairs)), which may be more than
    /// fit into memory.
    ///
    /// # Errors
    /// As [`RewardRun::new`].
    pub async fn of_rows(
        model: Policy,
        pairs: impl IntoIterator<Item = Result<Pair>>,
        train: &TrainOptions,
        options: &RewardOptions,
    ) -> Result<RewardRun> {
        train.check()?;
        use_kernels_of_checkpoint(model.model.gpu(), train)?;
        let rows = EncodedRows::given(&model, pairs, options.append_eos, train)?;
        let (step, optimiser) = plans(&model.model, &rows, train, options).await?;
        let (train, options, held_out) = (train.clone(), options.clone(), None);
        Ok(RewardRun { policy: model, train, options, rows, step, optimiser, held_out })
    }

    /// Enables an evaluation on held-out pairs (loss and accuracy) after every `every` steps and at the end, in `run`.
    /// Pairs above the length limits of training are skipped.
    ///
    /// # Errors
    /// As [`RewardRun::of_rows`]; [`crate::Error::Config`] for `every` = 0.
    pub fn with_held_out(
        self,
        pairs: impl IntoIterator<Item = Result<Pair>>,
        every: Option<usize>,
    ) -> Result<RewardRun> {
        let held_out = HeldOutPairs::new(&self.policy, pairs, self.options.append_eos, &self.train, every)?;
        Ok(RewardRun { held_out: Some(held_out), ..self })
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
        let RewardRun { policy, train, options, rows, step, optimiser, held_out } = self;
        let padding = policy.model.config().padding();
        let (batch_size, ranks) = (train.batch_size, train.ranks.clone());
        let method = Rewards { step, options, batch_size, padding, ranks };
        Ok(Trainer::new(policy, train, rows, optimiser, Box::new(method))?.with_held_out(held_out))
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

impl Policy {
    /// Loads a model folder to train it as a reward model. A language model gets a new score head, initialized from the
    /// seed of the options.
    ///
    /// # Errors
    /// As [`Policy::load`]; [`crate::Error::Config`] for a model family without reward models.
    pub async fn load_for_reward(gpu: &Gpu, dir: &Path, options: &TrainOptions) -> Result<Policy> {
        Policy::load_as(gpu, dir, options, true).await
    }
}

/// Training of scores that rank the chosen response above the rejected one.
struct Rewards {
    step: RewardStep,
    options: RewardOptions,
    batch_size: usize,
    padding: Option<u32>,
    ranks: Ranks,
}

/// The results of pairs whose gradient was added.
struct RatedBatch {
    results: Vec<RatedResult>,
    times: PhaseTimes,
}

impl RatedBatch {
    fn mean(&self, of: impl Fn(&RatedResult) -> f32) -> f64 {
        self.results.iter().map(|r| f64::from(of(r))).sum::<f64>() / self.results.len() as f64
    }

    /// Mean loss over the pairs.
    fn loss(&self) -> f64 {
        self.mean(|r| r.loss)
    }

    fn preference(&self) -> PreferenceReport {
        PreferenceReport {
            chosen: self.mean(|r| r.chosen),
            rejected: self.mean(|r| r.rejected),
            accuracies: self.mean(|r| (r.chosen > r.rejected) as u32 as f32),
            margins: self.mean(|r| r.chosen - r.rejected),
        }
    }
}

fn rated_pair(rows: &EncodedRows, row: usize) -> Result<RatedPair> {
    Ok(RatedPair { tree: rows.tree(row)?, margin: rows.margin(row) })
}

impl Rewards {
    /// Adds this rank's part of the gradient of the mean loss over `pairs`, in micro-batches.
    async fn run(&self, pairs: &[RatedPair]) -> Result<RatedBatch> {
        let weight = 1.0 / pairs.len() as f32;
        let mut times = PhaseTimes::new();
        let mine = self.run_here(self.ranks.mine(pairs), weight, &mut times).await;
        Ok(RatedBatch { results: self.ranks.join(mine).await?, times })
    }

    async fn run_here(
        &self,
        pairs: &[RatedPair],
        weight: f32,
        times: &mut PhaseTimes,
    ) -> Result<Vec<RatedResult>> {
        let mut results = Vec::new();
        let size = |pair: &RatedPair| capacity_of(&pair.tree);
        for micro in self.step.capacity().batches(pairs, self.batch_size, size)? {
            let (these, phases) = self.step.run(micro, weight).await?;
            results.extend(these);
            times.extend(phases);
        }
        Ok(results)
    }
}

impl Method for Rewards {
    fn command(&self) -> Command {
        Command::Reward
    }

    fn identity(&self, common: RunIdentity) -> Result<RunIdentity> {
        Ok(common
            .with_completions(self.options.append_eos)
            .with_centring(self.options.center_rewards_coefficient))
    }

    fn held_out<'t>(&'t mut self, rows: &'t EncodedRows) -> Task<'t, Result<Option<HeldOutReport>>> {
        Box::pin(async move {
            let pairs =
                (0..rows.len()).map(|row| rated_pair(rows, row)).collect::<Result<Vec<RatedPair>>>()?;
            let capacity = self.step.capacity();
            let fits = |pair: &RatedPair| capacity.holds(capacity_of(&pair.tree));
            let pairs: Vec<RatedPair> = pairs.into_iter().filter(fits).collect();
            if pairs.is_empty() {
                return Ok(None);
            }
            let batch = self.run(&pairs).await?;
            let PreferenceReport { accuracies, margins, .. } = batch.preference();
            Ok(Some(HeldOutReport { loss: batch.loss(), accuracies, margins, pairs: pairs.len() }))
        })
    }

    fn learn<'t>(&'t mut self, step: &'t mut Step<'_, '_>) -> Task<'t, Result<Learnt>> {
        Box::pin(async move {
            step.begin("learning");
            let drawn = step.batches.draws(step.done).rows;
            let pairs = drawn
                .into_iter()
                .map(|row| rated_pair(step.rows, row))
                .collect::<Result<Vec<RatedPair>>>()?;
            let batch = self.run(&pairs).await?;
            batch.times.iter().for_each(|(phase, ms)| step.phases.add(phase, *ms));
            let eos = step.policy.tokenizer.eos_ids();
            let ending = EncodedRows::ending_with(pairs.iter().map(|pair| &pair.tree), eos);
            let rows = |pair: &RatedPair| rated(&pair.tree, self.padding).rows();
            Ok(Learnt {
                loss: Some(batch.loss()),
                preference: Some(batch.preference()),
                gradient: None,
                policy: None,
                entropy: None,
                responses: ResponseReport { mean_length: None, contain_eos_token: Some(ending) },
                judging: None,
                tokens: pairs.iter().map(rows).sum(),
                pairs: Vec::new(),
                ratings: Vec::new(),
            })
        })
    }
}
