//! Forward and backward pass over judged pairs, recorded once and replayed for every micro-batch.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::packing::{Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Buffer, Category, Dim, Format, Gpu, Plan, PlanOptions, Recorder, Tensor};
use crate::model::stream::{Capacity, Stream, extent};
use crate::model::{Keys, Model};
use crate::ops::{self, PairInputs};
use crate::preference::Objective;

/// A labelled pair: a tree whose first response is the chosen one and whose second is the rejected one.
#[derive(Clone, Debug)]
pub struct LabelledPair {
    /// Prompt, chosen, rejected.
    pub tree: Tree,
    /// The reference model's log-probabilities of chosen and rejected, summed over tokens. They are weighted by
    /// [`ld_alpha`](Objective::ld_alpha) like those of the policy.
    pub reference: [f32; 2],
    /// The probability that the label is right, from 0 to 1: 1 for a hard label.
    pub label: f32,
    /// Whether the reference model sampled chosen and rejected, rather than the policy. The loss
    /// [`Xpo`](crate::preference::PreferenceLoss::Xpo) needs exactly one such response; other losses ignore it.
    pub by_reference: [bool; 2],
}

/// The weights of tokens in a response's log-probability. Tokens beyond the length of the shorter response have the
/// weight [`ld_alpha`](Objective::ld_alpha).
#[derive(Clone, Copy, Debug)]
pub(super) struct ReferenceWeights(pub Option<f32>);

impl ReferenceWeights {
    /// Sums the weighted log-probabilities of the tokens of chosen and rejected.
    pub fn sums(self, logps: [&[f32]; 2]) -> [f32; 2] {
        let shared = logps[0].len().min(logps[1].len());
        logps.map(|logps| {
            let sum = |logps: &[f32]| logps.iter().map(|l| *l as f64).sum::<f64>();
            let (first, rest) = logps.split_at(if self.0.is_some() { shared } else { logps.len() });
            (sum(first) + self.0.map_or(0.0, f64::from) * sum(rest)) as f32
        })
    }
}

/// The result of a pair.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PairResult {
    /// ℓ.
    pub loss: f32,
    /// β (log π − log π₀) of the chosen response; for a loss without a reference, see
    /// [`PreferenceTensors::COLUMNS`](crate::ops::PreferenceTensors::COLUMNS).
    pub reward_chosen: f32,
    /// The same for the rejected response.
    pub reward_rejected: f32,
    /// log π of the chosen response, weighted by [`ld_alpha`](Objective::ld_alpha).
    pub logp_chosen: f32,
    /// The same for the rejected response.
    pub logp_rejected: f32,
    /// Entropy of the next-token distribution in nats, mean over the tokens of both responses.
    pub entropy: f32,
}

/// The recorded forward and backward pass.
pub struct PairStep {
    gpu: Gpu,
    plan: Plan,
    stream: Arc<Stream>,
    objective: Objective,
    responses: Buffer,
    pairs: Buffer,
    /// The offsets of the parts of the responses, if the tokens beyond the shorter response have another weight.
    parts: Option<Buffer>,
    entropy: Tensor,
    table: Tensor,
}

/// Rejects weights that would invert the gradients or make them non-finite.
pub(super) fn check_weight(weight: f32) -> Result<()> {
    match weight > 0.0 && weight.is_finite() {
        true => Ok(()),
        false => Err(Error::config("weight", format!("{weight} is not a positive number"))),
    }
}

/// Rejects an empty list, and trees without exactly two responses.
pub(super) fn check_pairs<'t>(trees: impl ExactSizeIterator<Item = &'t Tree>) -> Result<()> {
    if trees.len() == 0 {
        return Err(Error::config("pairs", "are missing: a step needs at least one"));
    }
    for (i, tree) in trees.enumerate() {
        if tree.responses.len() != 2 {
            let why = format!("has {} responses: a pair needs two", tree.responses.len());
            return Err(Error::config(format!("pair {i}"), why));
        }
    }
    Ok(())
}

/// GPU time of each phase in milliseconds.
pub type PhaseTimes = Vec<(&'static str, f64)>;

impl PairStep {
    /// Records forward pass, loss and backward pass for micro-batches up to `capacity`. Gradients are added to those of
    /// the model.
    ///
    /// # Errors
    /// [`Error::Config`] for an invalid objective (see [`Objective::check`]), a model that is not trained, a capacity
    /// that is empty or too large, and a `gpu` or arena other than the model's; memory errors.
    pub async fn new(
        gpu: &Gpu,
        model: &Model,
        objective: impl Into<Objective>,
        capacity: Capacity,
        checkpointing: bool,
        arena: &Arena,
    ) -> Result<PairStep> {
        let objective = objective.into();
        objective.check()?;
        model.trained().check_trained(gpu)?;
        let stream = Arc::new(Stream::new(gpu, model, capacity, true)?);
        let pairs = capacity.sequences.div_ceil(2);
        let words = |label, n: usize| gpu.buffer(label, Category::Workspace, n as u64 * 4);
        let responses = words("responses", pairs * 2 * 3)?;
        let labelled = words("labels and weights", pairs * 2)?;
        let parts = match objective.ld_alpha {
            Some(_) => Some(words("parts of responses", pairs * 4 + 1)?),
            None => None,
        };

        let mut r = Recorder::training(gpu);
        r.phase("forward");
        let (tokens, targets) = stream.bind(&mut r);
        let squares = objective.use_weighting;
        let scored = model.score(&mut r, &tokens, &targets, &Keys::Stream, checkpointing, squares)?;
        let whole = (targets.offsets, targets.sequences);
        // The sum over each response, or over each of its two parts.
        let (offsets, segments) = match &parts {
            None => whole,
            Some(parts) => {
                let count = pairs * 4;
                let offsets = r.bind(&parts.region(), Dim::from(count + 1), 1, Format::U32);
                (offsets, Dim::Live { index: extent::PARTS, max: count as u32 })
            }
        };
        let policy = ops::segment_sum(&mut r, scored.logp, offsets, segments)?;
        let log_sum_squares = match scored.log_sum_squares {
            Some(squares) => Some(ops::segment_sum(&mut r, squares, whole.0, whole.1)?),
            None => None,
        };
        let pair_dim = Dim::Live { index: extent::PAIRS, max: pairs as u32 };
        let inputs = PairInputs {
            policy,
            responses: r.bind(&responses.region(), targets.sequences, 3, Format::F32),
            pairs: r.bind(&labelled.region(), pair_dim, 2, Format::F32),
            log_sum_squares,
            tail_weight: objective.ld_alpha,
        };
        let result = ops::preference_loss(&mut r, &inputs, &objective.terms())?;
        r.phase("backward");
        r.backward(&[(policy, result.d_policy)])?;
        for tensor in [scored.entropy, result.table] {
            r.output(tensor);
        }
        let plan = Plan::new(gpu, r, arena, PlanOptions::default()).await?;
        Ok(PairStep {
            gpu: gpu.clone(),
            plan,
            stream,
            objective,
            responses,
            pairs: labelled,
            parts,
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

    /// The number of launches in one replay.
    pub fn launch_count(&self) -> usize {
        self.plan.launch_count()
    }

    /// Adds the gradient of `weight` times the sum of the losses of the pairs. `weight` is 1 / pairs of the whole
    /// batch. Losses with terms over a batch compute them over these pairs.
    ///
    /// # Errors
    /// [`Error::Config`] for no pairs or more than the capacity, for a pair whose tree does not have two responses,
    /// whose label is not a probability or is soft although the loss does not support it, that lacks a response of the
    /// reference model although the loss needs one, or that does not suit the model, and for a weight that is not above
    /// 0; [`Error::TooLong`] for a sequence beyond the model's context. In these cases nothing is added.
    pub async fn run(&self, pairs: &[LabelledPair], weight: f32) -> Result<(Vec<PairResult>, PhaseTimes)> {
        self.check(pairs)?;
        self.run_packed(&Packed::new(pairs.iter().map(|p| &p.tree)), pairs, weight).await
    }

    /// Like [`PairStep::run`], but repeats the prompt for each response instead of sharing it.
    ///
    /// # Errors
    /// As [`PairStep::run`].
    pub async fn run_unshared(
        &self,
        pairs: &[LabelledPair],
        weight: f32,
    ) -> Result<(Vec<PairResult>, PhaseTimes)> {
        self.check(pairs)?;
        let trees: Vec<Tree> = pairs.iter().flat_map(|pair| pair.tree.unshared()).collect();
        self.run_packed(&Packed::new(&trees), pairs, weight).await
    }

    fn check(&self, pairs: &[LabelledPair]) -> Result<()> {
        check_pairs(pairs.iter().map(|pair| &pair.tree))?;
        for (i, pair) in pairs.iter().enumerate() {
            if !(0.0..=1.0).contains(&pair.label) {
                return Err(Error::config(
                    format!("label of pair {i}"),
                    format!("{} is not a probability", pair.label),
                ));
            }
        }
        if pairs.iter().any(|pair| pair.label < 1.0) {
            self.objective.check_soft_labels()?;
        }
        if self.objective.needs_reference_samples()
            && let Some(i) = pairs.iter().position(|pair| pair.by_reference[0] == pair.by_reference[1])
        {
            let why = "needs one response of the reference model for the loss xpo";
            return Err(Error::config(format!("pair {i}"), why));
        }
        self.stream.check(pairs.iter().map(|pair| &pair.tree))
    }

    async fn run_packed(
        &self,
        packed: &Packed,
        pairs: &[LabelledPair],
        weight: f32,
    ) -> Result<(Vec<PairResult>, PhaseTimes)> {
        check_weight(weight)?;
        self.capacity().check_holds("the batch", Capacity::of_packed(packed))?;
        let turn = self.gpu.turn().await?;
        let mut live = self.stream.upload(packed)?;
        live.extents[extent::PAIRS as usize] = pairs.len() as u32;
        let tokens = |s: usize| packed.offsets[s + 1] - packed.offsets[s];
        let response = |s: usize| {
            let pair = &pairs[s / 2];
            [pair.reference[s % 2], tokens(s) as f32, pair.by_reference[s % 2] as u8 as f32]
        };
        let responses: Vec<f32> = (0..2 * pairs.len()).flat_map(response).collect();
        let labelled: Vec<f32> = pairs.iter().flat_map(|pair| [pair.label, weight]).collect();
        self.gpu.upload(&self.responses.region(), &responses)?;
        self.gpu.upload(&self.pairs.region(), &labelled)?;
        if let Some(parts) = &self.parts {
            let begin = |s: usize| {
                let shared = tokens(s).min(tokens(s ^ 1));
                [packed.offsets[s], packed.offsets[s] + shared]
            };
            let mut offsets: Vec<u32> = (0..2 * pairs.len()).flat_map(begin).collect();
            live.extents[extent::PARTS as usize] = offsets.len() as u32;
            offsets.push(packed.offsets[2 * pairs.len()]);
            self.gpu.upload(&parts.region(), &offsets)?;
        }
        let running = self.plan.submit(&live, 1)?;
        drop(turn);
        let outputs = running.outputs().await?;
        let (table, entropy) = (outputs.f32(self.table), outputs.f32(self.entropy));
        let result = |p: usize| {
            let row = &table[p * 8..][..8];
            let tokens = packed.offsets[2 * p] as usize..packed.offsets[2 * p + 2] as usize;
            let count = tokens.len() as f32;
            PairResult {
                loss: row[0],
                reward_chosen: row[1],
                reward_rejected: row[2],
                logp_chosen: row[5],
                logp_rejected: row[6],
                entropy: entropy[tokens].iter().sum::<f32>() / count,
            }
        };
        Ok(((0..pairs.len()).map(result).collect(), outputs.phase_ms().to_vec()))
    }
}
