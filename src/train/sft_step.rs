//! Forward and backward pass of next-token training, recorded once and replayed for every micro-batch.

use serde::{Deserialize, Serialize};

use super::pair_step::{PhaseTimes, check_weight};
use crate::data::packing::{Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Buffer, Category, Format, Gpu, Plan, PlanOptions, Recorder, Tensor};
use crate::model::stream::{Capacity, Stream};
use crate::model::{Keys, Model};

/// The recorded forward and backward pass.
pub struct SftStep {
    gpu: Gpu,
    plan: Plan,
    stream: Stream,
    gradient: Buffer,
    logp: Tensor,
    entropy: Tensor,
}

/// Sums over the completion tokens of a micro-batch.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct SftResult {
    /// The sum of −log p, in nats.
    pub nll: f64,
    /// The sum of the entropies, in nats.
    pub entropy: f64,
    /// The number of tokens.
    pub tokens: usize,
}

impl SftStep {
    /// Records forward and backward pass for micro-batches up to `capacity`. Gradients are added to those of the model.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that is not trained, a capacity that is empty or too large, and a `gpu` or arena
    /// other than the model's; memory errors.
    pub async fn new(
        gpu: &Gpu,
        model: &Model,
        capacity: Capacity,
        checkpointing: bool,
        arena: &Arena,
    ) -> Result<SftStep> {
        model.trained().check_trained(gpu)?;
        let stream = Stream::new(gpu, model, capacity, true)?;
        let gradient = gpu.buffer("d log-probabilities", Category::Workspace, capacity.targets as u64 * 4)?;
        let mut r = Recorder::training(gpu);
        r.phase("forward");
        let (tokens, targets) = stream.bind(&mut r);
        let scored = model.score(&mut r, &tokens, &targets, &Keys::Stream, checkpointing, false)?;
        r.phase("backward");
        let seed = r.bind(&gradient.region(), scored.logp.rows, 1, Format::F32);
        r.backward(&[(scored.logp, seed)])?;
        r.output(scored.logp);
        r.output(scored.entropy);
        let plan = Plan::new(gpu, r, arena, PlanOptions::default()).await?;
        Ok(SftStep { gpu: gpu.clone(), plan, stream, gradient, logp: scored.logp, entropy: scored.entropy })
    }

    /// The largest micro-batch.
    pub fn capacity(&self) -> Capacity {
        self.stream.capacity()
    }

    /// The number of launches in one replay.
    pub fn launch_count(&self) -> usize {
        self.plan.launch_count()
    }

    /// Adds the gradient of `weight` times the summed −log p. `weight` is 1 / completion tokens of the whole batch.
    ///
    /// # Errors
    /// [`Error::Config`] for no trees or more than the capacity, for a tree without a response or that does not suit
    /// the model, and for a weight that is not above 0; [`Error::TooLong`] for a sequence beyond the model's context.
    /// In these cases nothing is added.
    pub async fn run(&self, trees: &[Tree], weight: f32) -> Result<(SftResult, PhaseTimes)> {
        check_weight(weight)?;
        if trees.is_empty() {
            return Err(Error::config("trees", "are missing: a step needs at least one"));
        }
        if let Some(i) = trees.iter().position(|tree| tree.responses.is_empty()) {
            return Err(Error::config(format!("tree {i}"), "has no response to learn from"));
        }
        self.stream.check(trees)?;
        self.capacity().check_holds("the batch", Capacity::of(trees))?;
        let packed = Packed::new(trees);
        let turn = self.gpu.turn().await?;
        let live = self.stream.upload(&packed)?;
        self.gpu.upload(&self.gradient.region(), &vec![-weight; packed.target_ids.len()])?;
        let running = self.plan.submit(&live, 1)?;
        drop(turn);
        let outputs = running.outputs().await?;
        let sum = |values: &[f32]| values.iter().map(|v| *v as f64).sum::<f64>();
        let result = SftResult {
            nll: -sum(outputs.f32(self.logp)),
            entropy: sum(outputs.f32(self.entropy)),
            tokens: packed.target_ids.len(),
        };
        Ok((result, outputs.phase_ms().to_vec()))
    }
}
