//! Policy gradient training on scored responses: log-probabilities before the update, micro-batches, and metrics.

use super::options::TrainOptions;
use super::pair_step::PhaseTimes;
use super::policy_loss::PolicyLoss;
use super::policy_step::{PolicyStep, ResponseResult, ScoredGroup};
use super::report::{PolicyGradientReport, PolicyReport};
use crate::collective::Ranks;
use crate::data::packing::Tree;
use crate::error::Result;
use crate::gpu::Arena;
use crate::model::stream::Capacity;
use crate::model::{Model, Scorer};
use crate::optim::Optimiser;

/// The plans of policy gradient training for one policy.
pub(super) struct PolicyTrainer {
    step: PolicyStep,
    reference: Scorer,
    /// Scores responses with the policy, if log-probabilities are needed before the update.
    policy: Option<Scorer>,
    loss: PolicyLoss,
    off_policy: bool,
    batch_size: usize,
    ranks: Ranks,
}

/// Responses to one prompt with their scores.
pub(super) struct RatedGroup {
    pub tree: Tree,
    /// `None` for a response without a usable score.
    pub scores: Vec<Option<f64>>,
    /// log π of the tokens when they were sampled; empty if not needed.
    pub sampler: Vec<Vec<f32>>,
}

/// The results of a step.
pub(super) struct LearntPolicy {
    /// Empty if all advantages are 0, so that there was nothing to learn.
    results: Vec<ResponseResult>,
    rewards: Rewards,
    times: PhaseTimes,
    tokens: usize,
    beta: f32,
    /// The advantages of the responses to every prompt.
    pub advantages: Vec<Vec<f64>>,
}

#[derive(Default)]
struct Rewards {
    mean: f64,
    deviation: f64,
    alike: f64,
}

impl PolicyTrainer {
    /// Records the plans for micro-batches up to `capacity`, and those of the optimiser.
    pub async fn new(
        model: &Model,
        reference: &Model,
        options: &TrainOptions,
        loss: PolicyLoss,
        off_policy: bool,
        capacity: Capacity,
        arena: &Arena,
    ) -> Result<(PolicyTrainer, Optimiser)> {
        loss.check()?;
        let (gpu, checkpointing) = (model.gpu(), options.gradient_checkpointing);
        // The largest plan is recorded first, so that the others fit into its memory.
        let step =
            PolicyStep::new(gpu, model, loss.gradient(), off_policy, capacity, checkpointing, arena).await?;
        // With a shared stream, a batch uploaded for one plan is available to the others.
        let reference = Scorer::of_stream(step.stream(), reference, arena).await?;
        let policy = match off_policy || loss.lowers_scores() {
            true => Some(Scorer::of_stream(step.stream(), model, arena).await?),
            false => None,
        };
        let optimiser = options.optimiser_of(model, arena).await?;
        let (batch_size, ranks) = (options.batch_size, options.ranks.clone());
        Ok((PolicyTrainer { step, reference, policy, loss, off_policy, batch_size, ranks }, optimiser))
    }

    /// log π of the tokens of the responses of each tree under the current policy, if they will be needed; otherwise
    /// empty.
    pub async fn log_probabilities(&self, trees: &[Tree]) -> Result<Vec<Vec<Vec<f32>>>> {
        match &self.policy {
            None => Ok(Vec::new()),
            Some(policy) => self.score(policy, trees).await,
        }
    }

    /// Log-probabilities of the tokens of every response, tree by tree. The trees are divided among the ranks.
    async fn score(&self, scorer: &Scorer, trees: &[Tree]) -> Result<Vec<Vec<Vec<f32>>>> {
        self.ranks.join(of_trees(scorer, self.ranks.mine(trees)).await).await
    }

    /// Adds this rank's part of the gradient of the step's loss, in micro-batches; nothing if all advantages are 0.
    pub async fn learn(&self, rated: &[RatedGroup]) -> Result<LearntPolicy> {
        let trees: Vec<Tree> = rated.iter().map(|group| group.tree.clone()).collect();
        let reference = self.score(&self.reference, &trees).await?;
        let mut scores: Vec<Vec<Option<f64>>> = rated.iter().map(|group| group.scores.clone()).collect();
        let rewards = Rewards::of(&scores);
        if self.loss.lowers_scores() {
            for (scores, (group, reference)) in scores.iter_mut().zip(rated.iter().zip(&reference)) {
                for (score, (drawn, reference)) in scores.iter_mut().zip(group.sampler.iter().zip(reference))
                {
                    let kl: f64 = drawn.iter().zip(reference).map(|(p, r)| f64::from(p - r)).sum();
                    *score = score.map(|score| score - f64::from(self.loss.beta) * kl);
                }
            }
        }
        let advantages: Vec<Vec<f64>> = scores.iter().map(|scores| self.loss.advantages(scores)).collect();
        let none = advantages.iter().flatten().all(|advantage| *advantage == 0.0);
        if none && self.loss.gradient().beta == 0.0 {
            return Ok(LearntPolicy {
                results: Vec::new(),
                rewards,
                times: PhaseTimes::new(),
                tokens: 0,
                beta: self.loss.beta,
                advantages,
            });
        }
        let lengths: Vec<usize> = trees.iter().flat_map(|tree| tree.responses.iter().map(Vec::len)).collect();
        let mut weights = self.loss.token_weights(&lengths).into_iter();
        let group = |((tree, reference), (advantages, rated)): ((Tree, _), (&Vec<f64>, &RatedGroup))| {
            let responses = tree.responses.len();
            ScoredGroup {
                tree,
                advantages: advantages.iter().map(|a| *a as f32).collect(),
                weights: weights.by_ref().take(responses).collect(),
                reference,
                sampler: if self.off_policy { rated.sampler.clone() } else { Vec::new() },
            }
        };
        let groups: Vec<ScoredGroup> =
            trees.into_iter().zip(reference).zip(advantages.iter().zip(rated)).map(group).collect();
        let mut times = PhaseTimes::new();
        let mine = self.learn_here(self.ranks.mine(&groups), &mut times).await;
        let results = self.ranks.join(mine).await?;
        let tokens = groups.iter().map(|group| group.tree.rows()).sum();
        let beta = self.loss.beta;
        Ok(LearntPolicy { results, rewards, times, tokens, beta, advantages })
    }

    async fn learn_here(
        &self,
        groups: &[ScoredGroup],
        times: &mut PhaseTimes,
    ) -> Result<Vec<ResponseResult>> {
        let mut results = Vec::new();
        let size = |group: &ScoredGroup| Capacity::of_tree(&group.tree);
        for micro in self.step.capacity().batches(groups, self.batch_size, size)? {
            let (these, phases) = self.step.run(micro).await?;
            results.extend(these);
            times.extend(phases);
        }
        Ok(results)
    }
}

/// Log-probabilities of the tokens of every response, tree by tree.
async fn of_trees(scorer: &Scorer, trees: &[Tree]) -> Result<Vec<Vec<Vec<f32>>>> {
    let mut scored = scorer.score(trees).await?.into_iter();
    let of = |tree: &Tree| scored.by_ref().take(tree.responses.len()).map(|scored| scored.logps).collect();
    Ok(trees.iter().map(of).collect())
}

impl Rewards {
    fn of(scores: &[Vec<Option<f64>>]) -> Rewards {
        let known: Vec<f64> = scores.iter().flatten().copied().flatten().collect();
        let n = known.len() as f64;
        if known.is_empty() {
            return Rewards::default();
        }
        let mean = known.iter().sum::<f64>() / n;
        let squares: f64 = known.iter().map(|score| (score - mean).powi(2)).sum();
        let alike = |scores: &&Vec<Option<f64>>| {
            let mut known = scores.iter().flatten();
            known.next().is_none_or(|first| known.all(|score| score == first))
        };
        Rewards {
            mean,
            deviation: if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 },
            alike: scores.iter().filter(alike).count() as f64 / scores.len() as f64,
        }
    }
}

impl LearntPolicy {
    fn sum(&self, of: impl Fn(&ResponseResult) -> f64) -> f64 {
        self.results.iter().map(of).sum()
    }

    /// `None` if nothing was learnt.
    fn learnt<T>(&self, of: impl FnOnce() -> T) -> Option<T> {
        (!self.results.is_empty()).then(of)
    }

    /// The step's loss.
    pub fn loss(&self) -> Option<f64> {
        self.learnt(|| self.sum(|r| r.loss))
    }

    /// Tokens in the forward and backward pass.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Mean entropy of the next-token distribution, in nats.
    pub fn entropy(&self) -> Option<f64> {
        self.learnt(|| self.sum(|r| r.entropy) / self.sum(|r| r.tokens as f64))
    }

    /// GPU time of each phase in milliseconds.
    pub fn times(&self) -> &PhaseTimes {
        &self.times
    }

    /// The KL to the reference.
    pub fn policy(&self) -> Option<PolicyReport> {
        self.learnt(|| {
            let kl = self.sum(|r| r.kl) / self.results.len() as f64;
            PolicyReport { logps_chosen: None, logps_rejected: None, kl, beta: self.beta as f64 }
        })
    }

    /// The scores, and the share of clipped tokens.
    pub fn gradient(&self) -> PolicyGradientReport {
        PolicyGradientReport {
            reward: self.rewards.mean,
            reward_std: self.rewards.deviation,
            frac_reward_zero_std: self.rewards.alike,
            clip_ratio: self.sum(|r| r.clipped as f64) / self.sum(|r| r.tokens as f64).max(1.0),
        }
    }
}
