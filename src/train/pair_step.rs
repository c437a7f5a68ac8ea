//! Forward and backward pass over annotated pairs, recorded once and replayed for every micro-batch.

use crate::data::packing::{Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Buffer, Category, Dim, Format, Gpu, Plan, PlanOptions, Recorder, Tensor};
use crate::model::stream::{Capacity, Stream, extent};
use crate::model::{Keys, Model};
use crate::ops::{self, VOCAB_CHUNK};
use crate::preference::PreferenceLoss;

/// A pair to learn from: a tree whose first response is the chosen one and whose second the rejected.
#[derive(Clone, Debug)]
pub struct LabelledPair {
    /// Prompt, chosen, rejected.
    pub tree: Tree,
    /// The reference model's log-probabilities of chosen and rejected.
    pub reference: [f32; 2],
    /// Probability that the label is right, from 0 to 1: 1 for a hard one.
    pub label: f32,
}

/// What a pair's replay gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct PairResult {
    /// ℓ.
    pub loss: f32,
    /// β (log π − log π₀) of the chosen response.
    pub reward_chosen: f32,
    /// The same of the rejected one.
    pub reward_rejected: f32,
    /// log π of the chosen response.
    pub logp_chosen: f32,
    /// log π of the rejected one.
    pub logp_rejected: f32,
    /// Mean entropy of the distributions that the pair's tokens were scored under, in nats.
    pub entropy: f32,
}

/// The recorded pass.
pub struct PairStep {
    gpu: Gpu,
    plan: Plan,
    stream: Stream,
    reference: Buffer,
    labels: Buffer,
    weights: Buffer,
    lengths: Buffer,
    logps: Tensor,
    entropy: Tensor,
    table: Tensor,
}

/// Refuses what would turn gradients round or into no numbers.
pub(super) fn check_weight(weight: f32) -> Result<()> {
    match weight > 0.0 && weight.is_finite() {
        true => Ok(()),
        false => Err(Error::config("weight", format!("{weight} is not a positive number"))),
    }
}

/// Milliseconds on the GPU by phase.
pub type PhaseTimes = Vec<(&'static str, f64)>;

impl PairStep {
    /// Records forward, loss and backward for micro-batches up to `capacity`; gradients are added to the model's.
    ///
    /// # Errors
    /// [`Error::Config`] for a β that is not positive, a model that is not trained, a capacity without room or beyond
    /// counting, and for a `gpu` or an arena that is not the model's; memory errors.
    pub fn new(
        gpu: &Gpu,
        model: &Model,
        loss: PreferenceLoss,
        capacity: Capacity,
        checkpointing: bool,
        arena: &Arena,
    ) -> Result<PairStep> {
        loss.check()?;
        model.trained().check_trained(gpu)?;
        let stream = Stream::new(gpu, model, capacity, true)?;
        let pairs = capacity.sequences.div_ceil(2);
        let words = |label, n: usize| gpu.buffer(label, Category::Workspace, n as u64 * 4);
        let reference = words("reference log-probabilities", pairs * 2)?;
        let labels = words("labels", pairs)?;
        let weights = words("pair weights", pairs)?;
        let lengths = words("response lengths", pairs * 2)?;

        let mut r = Recorder::training(gpu);
        r.phase("forward");
        let (tokens, targets) = stream.bind(&mut r);
        let hidden = model.hidden(&mut r, &tokens, &Keys::Stream, checkpointing)?;
        let picked = ops::gather_rows(&mut r, &hidden.into(), targets.rows, targets.inverse)?;
        let normed = model.final_norm(&mut r, picked)?;
        let head = model.head(&mut r);
        let scored = ops::logprob(&mut r, normed, &head, targets.ids, VOCAB_CHUNK, model.logit_transform())?;
        let logps = ops::segment_sum(&mut r, scored.logp, targets.offsets, targets.sequences)?;

        let pair_dim = Dim::Live { index: extent::PAIRS, max: pairs as u32 };
        let bind = |r: &mut Recorder, b: &Buffer, rows| r.bind(&b.region(), rows, 1, Format::F32);
        let against = bind(&mut r, &reference, targets.sequences);
        let label = bind(&mut r, &labels, pair_dim);
        let weight = bind(&mut r, &weights, pair_dim);
        let length = loss.averages_tokens().then(|| bind(&mut r, &lengths, targets.sequences));
        let (kind, beta) = (loss.kind(), loss.beta());
        let result = ops::preference_loss(&mut r, logps, against, label, weight, length, kind, beta)?;
        r.phase("backward");
        r.backward(&[(logps, result.d_policy)])?;
        for tensor in [logps, scored.entropy, result.table] {
            r.output(tensor);
        }
        let plan = Plan::new(gpu, r, arena, PlanOptions::default())?;
        Ok(PairStep {
            gpu: gpu.clone(),
            plan,
            stream,
            reference,
            labels,
            weights,
            lengths,
            logps,
            entropy: scored.entropy,
            table: result.table,
        })
    }

    /// The largest micro-batch.
    pub fn capacity(&self) -> Capacity {
        self.stream.capacity()
    }

    /// Launches of one replay.
    pub fn launch_count(&self) -> usize {
        self.plan.launch_count()
    }

    /// Adds the gradient of `weight` times the sum of the pairs' losses; `weight` is 1 / pairs of the whole batch.
    ///
    /// # Errors
    /// [`Error::Config`] for no pair at all or more than the capacity, for one whose tree has not two responses, whose label
    /// is no probability, or that the model cannot read, and for a weight that is not above 0; [`Error::TooLong`] for a
    /// sequence beyond the model's context. Nothing has been added then.
    pub fn run(&self, pairs: &[LabelledPair], weight: f32) -> Result<(Vec<PairResult>, PhaseTimes)> {
        self.check(pairs)?;
        self.run_packed(&Packed::new(pairs.iter().map(|p| &p.tree)), pairs, weight)
    }

    /// [`PairStep::run`] with the prompt repeated for each response rather than shared.
    ///
    /// # Errors
    /// As [`PairStep::run`].
    pub fn run_unshared(&self, pairs: &[LabelledPair], weight: f32) -> Result<(Vec<PairResult>, PhaseTimes)> {
        self.check(pairs)?;
        let trees: Vec<Tree> = pairs.iter().flat_map(|pair| pair.tree.unshared()).collect();
        self.run_packed(&Packed::new(&trees), pairs, weight)
    }

    fn check(&self, pairs: &[LabelledPair]) -> Result<()> {
        if pairs.is_empty() {
            return Err(Error::config("pairs", "are none: a step needs at least one"));
        }
        for (i, pair) in pairs.iter().enumerate() {
            if pair.tree.responses.len() != 2 {
                let why = format!("has {} responses, a pair has two", pair.tree.responses.len());
                return Err(Error::config(format!("pair {i}"), why));
            }
            if !(0.0..=1.0).contains(&pair.label) {
                return Err(Error::config(
                    format!("label of pair {i}"),
                    format!("{} is no probability", pair.label),
                ));
            }
        }
        self.stream.check(pairs.iter().map(|pair| &pair.tree))
    }

    fn run_packed(
        &self,
        packed: &Packed,
        pairs: &[LabelledPair],
        weight: f32,
    ) -> Result<(Vec<PairResult>, PhaseTimes)> {
        check_weight(weight)?;
        self.capacity().check_holds("the batch", Capacity::of_packed(packed))?;
        let _turn = self.gpu.turn();
        let mut live = self.stream.upload(packed)?;
        live.extents[extent::PAIRS as usize] = pairs.len() as u32;
        let reference: Vec<f32> = pairs.iter().flat_map(|p| p.reference).collect();
        let lengths: Vec<f32> = packed.offsets.windows(2).map(|o| (o[1] - o[0]) as f32).collect();
        self.gpu.upload(&self.reference.region(), &reference)?;
        self.gpu.upload(&self.labels.region(), &pairs.iter().map(|p| p.label).collect::<Vec<_>>())?;
        self.gpu.upload(&self.weights.region(), &vec![weight; pairs.len()])?;
        self.gpu.upload(&self.lengths.region(), &lengths)?;
        let outputs = self.plan.run(&live)?;
        let (logps, table, entropy) =
            (outputs.f32(self.logps), outputs.f32(self.table), outputs.f32(self.entropy));
        let result = |p: usize| {
            let row = &table[p * 8..][..8];
            let tokens = packed.offsets[2 * p] as usize..packed.offsets[2 * p + 2] as usize;
            let count = tokens.len() as f32;
            PairResult {
                loss: row[0],
                reward_chosen: row[2],
                reward_rejected: row[3],
                logp_chosen: logps[2 * p],
                logp_rejected: logps[2 * p + 1],
                entropy: entropy[tokens].iter().sum::<f32>() / count,
            }
        };
        Ok(((0..pairs.len()).map(result).collect(), outputs.phase_ms().to_vec()))
    }
}
