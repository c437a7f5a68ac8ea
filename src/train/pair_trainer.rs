//! The common part of offline and online preference training: reference log-probabilities, micro-batches, and metrics
//! of the pairs.

use super::options::TrainOptions;
use super::pair_step::{LabelledPair, PairResult, PairStep, PhaseTimes, ReferenceWeights};
use super::report::{PolicyReport, PreferenceReport};
use crate::collective::Ranks;
use crate::data::packing::Tree;
use crate::error::Result;
use crate::gpu::Arena;
use crate::model::stream::Capacity;
use crate::model::{Model, Scored, Scorer};
use crate::optim::Optimiser;
use crate::preference::Objective;

/// The plans of preference training for one policy.
pub struct PairTrainer {
    step: PairStep,
    reference: Scorer,
    /// Scores responses with the policy, for active selection.
    policy: Option<Scorer>,
    reference_weights: ReferenceWeights,
    batch_size: usize,
    ranks: Ranks,
}

/// The results of a batch.
pub struct LearntBatch {
    results: Vec<PairResult>,
    reference: Vec<[f32; 2]>,
    times: PhaseTimes,
    tokens: usize,
    loss_beta: f32,
}

impl PairTrainer {
    /// Records the plans for micro-batches up to `capacity`, and those of the optimiser. `scored` is the largest
    /// micro-batch for [`PairTrainer::log_ratios`], if it is used.
    pub async fn new(
        model: &Model,
        reference: &Model,
        options: &TrainOptions,
        loss: &Objective,
        capacity: Capacity,
        scored: Option<Capacity>,
        arena: &Arena,
    ) -> Result<(PairTrainer, Optimiser)> {
        let gpu = model.gpu();
        // The largest plan is recorded first, so that the others fit into its memory.
        let step = PairStep::new(gpu, model, loss, capacity, options.gradient_checkpointing, arena).await?;
        let reference = match scored {
            Some(scored) => Scorer::new(gpu, reference, scored, arena).await?,
            // With a shared stream, a batch uploaded for one plan is available to the other.
            None => Scorer::of_stream(step.stream(), reference, arena).await?,
        };
        let policy = match scored {
            Some(scored) => Some(Scorer::new(gpu, model, scored, arena).await?),
            None => None,
        };
        let optimiser = options.optimiser_of(model, arena).await?;
        let reference_weights = ReferenceWeights(loss.ld_alpha);
        let (batch_size, ranks) = (options.batch_size, options.ranks.clone());
        Ok((PairTrainer { step, reference, policy, reference_weights, batch_size, ranks }, optimiser))
    }

    /// Whether a pair fits into the plans.
    pub fn holds(&self, tree: &Tree) -> bool {
        self.step.capacity().holds(Capacity::of_tree(tree))
    }

    /// The reference model's log-probabilities of both responses of each tree, with tokens weighted as in the loss.
    pub async fn reference(&self, trees: &[Tree]) -> Result<Vec<[f32; 2]>> {
        let mine = self.reference.score(self.ranks.mine(trees)).await;
        let sums = |pair: &[Scored]| self.reference_weights.sums([&pair[0].logps, &pair[1].logps]);
        self.ranks.join(mine.map(|scores| scores.chunks(2).map(sums).collect())).await
    }

    /// log π − log π₀ of the responses of each tree, summed over their tokens.
    ///
    /// # Panics
    /// If the trainer was created without `scored`.
    pub async fn log_ratios(&self, trees: &[Tree]) -> Result<Vec<Vec<f64>>> {
        let mine = self.log_ratios_here(self.ranks.mine(trees)).await;
        self.ranks.join(mine).await
    }

    async fn log_ratios_here(&self, trees: &[Tree]) -> Result<Vec<Vec<f64>>> {
        let policy = self.policy.as_ref().expect("created with `scored`").score(trees).await?;
        let reference = self.reference.score(trees).await?;
        let ratio = |(policy, reference): (Scored, Scored)| {
            policy.logps.iter().zip(&reference.logps).map(|(p, r)| f64::from(*p) - f64::from(*r)).sum()
        };
        let mut ratios = policy.into_iter().zip(reference).map(ratio);
        Ok(trees.iter().map(|tree| ratios.by_ref().take(tree.responses.len()).collect()).collect())
    }

    /// Adds this rank's part of the gradient of the mean loss over `pairs`, in micro-batches. Losses with terms over a
    /// batch compute them per micro-batch.
    pub async fn learn(&self, pairs: &[LabelledPair], loss: &Objective) -> Result<LearntBatch> {
        let weight = 1.0 / pairs.len() as f32;
        let mut times = PhaseTimes::new();
        let mine = self.learn_here(self.ranks.mine(pairs), weight, &mut times).await;
        let results = self.ranks.join(mine).await?;
        let reference = pairs.iter().map(|p| p.reference).collect();
        let tokens = pairs.iter().map(|p| p.tree.rows()).sum();
        Ok(LearntBatch { results, reference, times, tokens, loss_beta: loss.beta() })
    }

    async fn learn_here(
        &self,
        pairs: &[LabelledPair],
        weight: f32,
        times: &mut PhaseTimes,
    ) -> Result<Vec<PairResult>> {
        let mut results = Vec::new();
        // A batch across an epoch boundary may repeat long rows, so that fewer rows than usual fit into one stream.
        for micro in
            self.step.capacity().batches(pairs, self.batch_size, |pair| Capacity::of_tree(&pair.tree))?
        {
            let (these, phases) = self.step.run(micro, weight).await?;
            results.extend(these);
            times.extend(phases);
        }
        Ok(results)
    }
}

impl LearntBatch {
    fn mean(&self, of: impl Fn(&PairResult) -> f32) -> f64 {
        self.results.iter().map(|r| of(r) as f64).sum::<f64>() / self.results.len() as f64
    }

    /// Mean loss over the pairs.
    pub fn loss(&self) -> f64 {
        self.mean(|r| r.loss)
    }

    /// Tokens in the forward and backward pass.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Mean entropy of the next-token distribution, in nats.
    pub fn entropy(&self) -> f64 {
        self.mean(|r| r.entropy)
    }

    /// GPU time of each phase in milliseconds.
    pub fn times(&self) -> &PhaseTimes {
        &self.times
    }

    /// The rewards.
    pub fn preference(&self) -> PreferenceReport {
        PreferenceReport {
            chosen: self.mean(|r| r.reward_chosen),
            rejected: self.mean(|r| r.reward_rejected),
            accuracies: self.mean(|r| (r.reward_chosen > r.reward_rejected) as u32 as f32),
            margins: self.mean(|r| r.reward_chosen - r.reward_rejected),
        }
    }

    /// The log-probabilities.
    pub fn policy(&self) -> PolicyReport {
        // log π − log π₀ summed over tokens, mean over both responses.
        let kl = self.results.iter().zip(&self.reference).map(|(r, reference)| {
            0.5 * ((r.logp_chosen - reference[0]) as f64 + (r.logp_rejected - reference[1]) as f64)
        });
        PolicyReport {
            logps_chosen: Some(self.mean(|r| r.logp_chosen)),
            logps_rejected: Some(self.mean(|r| r.logp_rejected)),
            kl: kl.sum::<f64>() / self.results.len() as f64,
            beta: self.loss_beta as f64,
        }
    }
}
