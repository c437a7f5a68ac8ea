//! Forward and backward pass of a reward model over pairs, recorded once and replayed for every micro-batch.

use serde::{Deserialize, Serialize};

use super::pair_step::{PhaseTimes, check_pairs, check_weight};
use crate::data::packing::{ChoiceTree, Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Buffer, Category, Dim, Format, Gpu, Plan, PlanOptions, Recorder, Tensor};
use crate::model::Model;
use crate::model::rater::{check_rates, rated};
use crate::model::stream::{Capacity, Stream, extent};
use crate::ops::{self, PairInputs, PairLoss, PairTerm};

/// A pair to learn from: a tree whose first response is the chosen one and whose second is the rejected one.
#[derive(Clone, Debug)]
pub struct RatedPair {
    /// Prompt, chosen, rejected.
    pub tree: Tree,
    /// The margin by which the score of the chosen response should exceed that of the rejected one; 0 for none.
    pub margin: f32,
}

/// The result of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RatedResult {
    /// −log σ(chosen − rejected − margin) + centring (chosen + rejected)².
    pub loss: f32,
    /// The score of the chosen response.
    pub chosen: f32,
    /// The score of the rejected response.
    pub rejected: f32,
}

/// The recorded forward and backward pass.
pub struct RewardStep {
    gpu: Gpu,
    plan: Plan,
    stream: Stream,
    responses: Buffer,
    pairs: Buffer,
    padding: Option<u32>,
    scores: Tensor,
    table: Tensor,
}

impl RewardStep {
    /// Records forward pass, loss and backward pass for micro-batches up to `capacity`, where each response has one
    /// target. Gradients are added to those of the model. The loss is that of Bradley and Terry, plus, for `centring`
    /// above 0, a term that centres the scores around 0 (Eisenstein et al. 2023, arXiv 2312.09244).
    ///
    /// # Errors
    /// [`Error::Config`] for a `centring` below 0, a model that is not trained or not a reward model, a capacity that
    /// is empty or too large, and a `gpu` or arena other than the model's; memory errors.
    pub async fn new(
        gpu: &Gpu,
        model: &Model,
        centring: f32,
        capacity: Capacity,
        checkpointing: bool,
        arena: &Arena,
    ) -> Result<RewardStep> {
        check_rates(model)?;
        if !(centring >= 0.0 && centring.is_finite()) {
            let why = format!("{centring} is negative or not finite");
            return Err(Error::config("center-rewards-coefficient", why));
        }
        model.trained().check_trained(gpu)?;
        let stream = Stream::new(gpu, model, capacity, true)?;
        let pairs = capacity.sequences.div_ceil(2);
        let words = |label, n: usize| gpu.buffer(label, Category::Workspace, n as u64 * 4);
        let responses = words("responses", capacity.targets * 3)?;
        let labelled = words("labels and weights", pairs * 2)?;
        let mut r = Recorder::training(gpu);
        r.phase("forward");
        let (tokens, targets) = stream.bind(&mut r);
        let scores = model.rate(&mut r, &tokens, &targets, checkpointing)?;
        let pair_dim = Dim::Live { index: extent::PAIRS, max: pairs as u32 };
        let inputs = PairInputs {
            policy: scores,
            responses: r.bind(&responses.region(), scores.rows, 3, Format::F32),
            pairs: r.bind(&labelled.region(), pair_dim, 2, Format::F32),
            log_sum_squares: None,
            tail_weight: None,
        };
        let mut terms = vec![PairTerm::new(PairLoss::Sigmoid, 1.0)];
        if centring > 0.0 {
            let term = PairTerm::new(PairLoss::Centre, 1.0);
            terms.push(PairTerm { weight: centring, reference_free: true, ..term });
        }
        let result = ops::preference_loss(&mut r, &inputs, &terms)?;
        r.phase("backward");
        r.backward(&[(scores, result.d_policy)])?;
        r.output(scores);
        r.output(result.table);
        let plan = Plan::new(gpu, r, arena, PlanOptions::default()).await?;
        let (gpu, padding, table) = (gpu.clone(), model.config().padding(), result.table);
        Ok(RewardStep { gpu, plan, stream, responses, pairs: labelled, padding, scores, table })
    }

    /// The largest micro-batch.
    pub fn capacity(&self) -> Capacity {
        self.stream.capacity()
    }

    /// Adds the gradient of `weight` times the sum of the losses of the pairs. `weight` is 1 / pairs of the whole
    /// batch.
    ///
    /// # Errors
    /// [`Error::Config`] for no pairs or more than the capacity, for a pair whose tree does not have two responses,
    /// whose margin is not finite, or that does not suit the model, and for a weight that is not above 0;
    /// [`Error::TooLong`] for a sequence beyond the model's context. In these cases nothing is added.
    pub async fn run(&self, pairs: &[RatedPair], weight: f32) -> Result<(Vec<RatedResult>, PhaseTimes)> {
        check_weight(weight)?;
        check_pairs(pairs.iter().map(|pair| &pair.tree))?;
        for (i, pair) in pairs.iter().enumerate() {
            if !pair.margin.is_finite() {
                return Err(Error::config(format!("margin of pair {i}"), format!("is {}", pair.margin)));
            }
        }
        let trees: Vec<ChoiceTree> = pairs.iter().map(|pair| rated(&pair.tree, self.padding)).collect();
        self.stream.check_choices(&trees)?;
        let packed = Packed::of_choices(&trees);
        self.capacity().check_holds("the batch", Capacity::of_packed(&packed))?;
        let turn = self.gpu.turn().await?;
        let mut live = self.stream.upload(&packed)?;
        live.extents[extent::PAIRS as usize] = pairs.len() as u32;
        // The margin takes the place of the reference log-probability, which the loss subtracts from the chosen
        // response's score.
        let responses: Vec<f32> = pairs.iter().flat_map(|p| [p.margin, 1.0, 0.0, 0.0, 1.0, 0.0]).collect();
        self.gpu.upload(&self.responses.region(), &responses)?;
        let labelled: Vec<f32> = pairs.iter().flat_map(|_| [1.0, weight]).collect();
        self.gpu.upload(&self.pairs.region(), &labelled)?;
        let running = self.plan.submit(&live, 1)?;
        drop(turn);
        let outputs = running.outputs().await?;
        let (scores, table) = (outputs.f32(self.scores), outputs.f32(self.table));
        let result =
            |p: usize| RatedResult { loss: table[8 * p], chosen: scores[2 * p], rejected: scores[2 * p + 1] };
        Ok(((0..pairs.len()).map(result).collect(), outputs.phase_ms().to_vec()))
    }
}
