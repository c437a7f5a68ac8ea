//! Log-probabilities of given tokens: the reference model's, an annotator's, those of `oaif score`.

use super::stream::{Capacity, Stream};
use super::{Keys, Model};
use crate::data::packing::{ChoiceTree, Packed, Tree};
use crate::error::Result;
use crate::gpu::{Arena, Gpu, Plan, PlanOptions, Recorder, Tensor};
use crate::ops::{self, VOCAB_CHUNK};

/// A forward pass of one model over packed trees, recorded once.
pub struct Scorer {
    plan: Plan,
    stream: Stream,
    logp: Tensor,
    entropy: Tensor,
}

/// The tokens of one sequence, scored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// log p of each response token, in nats.
    pub logps: Vec<f32>,
    /// Entropy of the distribution that each was drawn from, in nats.
    pub entropies: Vec<f32>,
}

impl Scored {
    /// log p of the whole response.
    pub fn logp(&self) -> f64 {
        self.logps.iter().map(|l| *l as f64).sum()
    }
}

impl Scorer {
    /// Records the pass for streams up to `capacity`.
    pub fn new(gpu: &Gpu, model: &Model, capacity: Capacity, arena: &Arena) -> Result<Scorer> {
        let stream = Stream::new(gpu, capacity, false)?;
        let mut r = Recorder::new(gpu);
        let (tokens, targets) = stream.bind(&mut r);
        let hidden = model.hidden(&mut r, &tokens, &Keys::Stream, false)?;
        let picked = ops::gather_rows(&mut r, &hidden.into(), targets.rows, None)?;
        let normed = model.final_norm(&mut r, picked)?;
        let head = model.head(&mut r);
        let scored = ops::logprob(&mut r, normed, &head, targets.ids, VOCAB_CHUNK)?;
        r.output(scored.logp);
        r.output(scored.entropy);
        let plan = Plan::new(gpu, r, arena, PlanOptions::default())?;
        Ok(Scorer { plan, stream, logp: scored.logp, entropy: scored.entropy })
    }

    /// The largest stream of one pass; [`Scorer::score`] takes more in several passes.
    pub fn capacity(&self) -> Capacity {
        self.stream.capacity()
    }

    /// Scores every response of every tree, in order.
    pub fn score(&self, trees: &[Tree]) -> Result<Vec<Scored>> {
        let mut out = Vec::new();
        for batch in self.capacity().batches(trees, usize::MAX, |tree| tree) {
            self.run(&Packed::new(batch), &mut out)?;
        }
        Ok(out)
    }

    /// For every branch of every tree, in order, log p of each of its tree's choices. A tree must fit the capacity
    /// by itself.
    pub fn score_choices(&self, trees: &[ChoiceTree]) -> Result<Vec<Scored>> {
        let size = |trees: &[ChoiceTree]| Capacity {
            tokens: trees.iter().map(ChoiceTree::rows).sum(),
            targets: trees.iter().map(|t| t.branches.len() * t.choices.len()).sum(),
            sequences: trees.iter().map(|t| t.branches.len()).sum(),
        };
        let mut out = Vec::new();
        let mut first = 0;
        while first < trees.len() {
            let fits = |last: &usize| self.capacity().holds(size(&trees[first..*last]));
            let last = (first + 1..=trees.len()).take_while(fits).last();
            let last = last.unwrap_or_else(|| panic!("a tree of {} rows does not fit", trees[first].rows()));
            self.run(&Packed::of_choices(&trees[first..last]), &mut out)?;
            first = last;
        }
        Ok(out)
    }

    fn run(&self, packed: &Packed, out: &mut Vec<Scored>) -> Result<()> {
        let outputs = self.plan.run(&self.stream.upload(packed)?)?;
        let (logps, entropies) = (outputs.f32(self.logp), outputs.f32(self.entropy));
        for bounds in packed.offsets.windows(2) {
            let range = bounds[0] as usize..bounds[1] as usize;
            out.push(Scored { logps: logps[range.clone()].to_vec(), entropies: entropies[range].to_vec() });
        }
        Ok(())
    }
}
