//! Forward and backward pass of a policy gradient, recorded once and replayed for every micro-batch.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pair_step::PhaseTimes;
use crate::data::packing::{Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Buffer, Category, Format, Gpu, Plan, PlanOptions, Recorder, Tensor};
use crate::model::stream::{Capacity, Stream};
use crate::model::{Keys, Model};
use crate::ops::{self, PolicyGradient};

/// Responses to one prompt, with their advantages.
#[derive(Clone, Debug)]
pub struct ScoredGroup {
    /// The prompt and all its responses.
    pub tree: Tree,
    /// The advantage A of each response.
    pub advantages: Vec<f32>,
    /// The weight of the tokens of each response.
    pub weights: Vec<f32>,
    /// log π₀ of the tokens of each response.
    pub reference: Vec<Vec<f32>>,
    /// log π of the tokens under the policy that sampled them, if that may be another policy.
    pub sampler: Vec<Vec<f32>>,
}

/// The result of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResponseResult {
    /// The weighted sum of the losses of its tokens.
    pub loss: f64,
    /// log π − log π₀, summed over its tokens.
    pub kl: f64,
    /// The sum of the entropies of the next-token distributions, in nats.
    pub entropy: f64,
    /// The number of tokens whose ratio was clipped.
    pub clipped: usize,
    /// The number of tokens.
    pub tokens: usize,
}

/// The recorded forward and backward pass.
pub struct PolicyStep {
    gpu: Gpu,
    plan: Plan,
    stream: Arc<Stream>,
    reference: Buffer,
    sampler: Option<Buffer>,
    advantages: Buffer,
    weights: Buffer,
    logp: Tensor,
    entropy: Tensor,
    table: Tensor,
}

impl PolicyStep {
    /// Records forward pass, loss and backward pass for micro-batches up to `capacity`. Gradients are added to those of
    /// the model. `off_policy`: responses may have been sampled by another policy than the one that is trained.
    ///
    /// # Errors
    /// [`Error::Config`] for clipping bounds or β below 0 or not finite, a model that is not trained, a capacity that
    /// is empty or too large, and a `gpu` or arena other than the model's; memory errors.
    pub async fn new(
        gpu: &Gpu,
        model: &Model,
        gradient: PolicyGradient,
        off_policy: bool,
        capacity: Capacity,
        checkpointing: bool,
        arena: &Arena,
    ) -> Result<PolicyStep> {
        model.trained().check_trained(gpu)?;
        let stream = Arc::new(Stream::new(gpu, model, capacity, true)?);
        let words = |label| gpu.buffer(label, Category::Workspace, capacity.targets as u64 * 4);
        let reference = words("reference log-probabilities")?;
        let sampler = if off_policy { Some(words("sampler's log-probabilities")?) } else { None };
        let (advantages, weights) = (words("advantages")?, words("token weights")?);
        let mut r = Recorder::training(gpu);
        r.phase("forward");
        let (tokens, targets) = stream.bind(&mut r);
        let scored = model.score(&mut r, &tokens, &targets, &Keys::Stream, checkpointing, false)?;
        let bind = |r: &mut Recorder, b: &Buffer| r.bind(&b.region(), scored.logp.rows, 1, Format::F32);
        let against = bind(&mut r, &reference);
        let drawn = sampler.as_ref().map(|sampler| bind(&mut r, sampler));
        let (advantage, weight) = (bind(&mut r, &advantages), bind(&mut r, &weights));
        let result = ops::policy_gradient(&mut r, scored.logp, against, drawn, advantage, weight, gradient)?;
        r.phase("backward");
        r.backward(&[(scored.logp, result.d_policy)])?;
        for tensor in [scored.logp, scored.entropy, result.table] {
            r.output(tensor);
        }
        let plan = Plan::new(gpu, r, arena, PlanOptions::default()).await?;
        Ok(PolicyStep {
            gpu: gpu.clone(),
            plan,
            stream,
            reference,
            sampler,
            advantages,
            weights,
            logp: scored.logp,
            entropy: scored.entropy,
            table: result.table,
        })
    }

    /// The buffers of the micro-batches. A [`Scorer`](crate::model::Scorer) of the same batches may share them.
    pub(super) fn stream(&self) -> Arc<Stream> {
        self.stream.clone()
    }

    /// The largest micro-batch.
    pub fn capacity(&self) -> Capacity {
        self.stream.capacity()
    }

    /// Adds the gradient of the weighted loss of the groups. Returns one result per response, in order.
    ///
    /// # Errors
    /// [`Error::Config`] for no groups or more than the capacity, for a group that lacks a number for a response or a
    /// token, or that does not suit the model; [`Error::TooLong`] for a sequence beyond the model's context. In these
    /// cases nothing is added.
    pub async fn run(&self, groups: &[ScoredGroup]) -> Result<(Vec<ResponseResult>, PhaseTimes)> {
        if groups.is_empty() {
            return Err(Error::config("groups", "are missing: a step needs at least one"));
        }
        for (i, group) in groups.iter().enumerate() {
            self.check(i, group)?;
        }
        self.stream.check(groups.iter().map(|group| &group.tree))?;
        let packed = Packed::new(groups.iter().map(|group| &group.tree));
        self.capacity().check_holds("the batch", Capacity::of_packed(&packed))?;
        let turn = self.gpu.turn().await?;
        let live = self.stream.upload(&packed)?;
        let per_token = |of: &dyn Fn(&ScoredGroup, usize) -> f32| -> Vec<f32> {
            let of_group = |group: &ScoredGroup| -> Vec<f32> {
                let responses = group.tree.responses.iter().enumerate();
                responses.flat_map(|(i, ids)| vec![of(group, i); ids.len()]).collect()
            };
            groups.iter().flat_map(of_group).collect()
        };
        let flat = |of: fn(&ScoredGroup) -> &Vec<Vec<f32>>| -> Vec<f32> {
            groups.iter().flat_map(|group| of(group).iter().flatten().copied()).collect()
        };
        let weights = per_token(&|group, i| group.weights[i]);
        let reference = flat(|group| &group.reference);
        self.gpu.upload(&self.reference.region(), &reference)?;
        self.gpu.upload(&self.advantages.region(), &per_token(&|group, i| group.advantages[i]))?;
        self.gpu.upload(&self.weights.region(), &weights)?;
        if let Some(sampler) = &self.sampler {
            self.gpu.upload(&sampler.region(), &flat(|group| &group.sampler))?;
        }
        let running = self.plan.submit(&live, 1)?;
        drop(turn);
        let outputs = running.outputs().await?;
        let (logp, entropy, table) =
            (outputs.f32(self.logp), outputs.f32(self.entropy), outputs.f32(self.table));
        let result = |bounds: &[u32]| {
            let mut result = ResponseResult::default();
            for t in bounds[0] as usize..bounds[1] as usize {
                result.loss += f64::from(weights[t]) * f64::from(table[4 * t]);
                result.kl += f64::from(logp[t]) - f64::from(reference[t]);
                result.entropy += f64::from(entropy[t]);
                result.clipped += usize::from(table[4 * t + 3] > 0.5);
                result.tokens += 1;
            }
            result
        };
        Ok((packed.offsets.windows(2).map(result).collect(), outputs.phase_ms().to_vec()))
    }

    fn check(&self, i: usize, group: &ScoredGroup) -> Result<()> {
        let responses = &group.tree.responses;
        let whole = |logps: &Vec<Vec<f32>>| {
            logps.len() == responses.len() && logps.iter().zip(responses).all(|(l, ids)| l.len() == ids.len())
        };
        let drawn = self.sampler.is_none() || whole(&group.sampler);
        let numbers = [&group.advantages, &group.weights];
        let complete =
            numbers.iter().all(|of| of.len() == responses.len() && of.iter().all(|x| x.is_finite()));
        match !responses.is_empty() && complete && whole(&group.reference) && drawn {
            true => Ok(()),
            false => {
                let why = "needs responses, and for each an advantage, a weight and log-probabilities of its tokens";
                Err(Error::config(format!("group {i}"), why))
            }
        }
    }
}
