//! Times whole steps: forward and backward pass, scoring, the optimiser's update; and sweeps over one size.

use super::subject::Flops;
use super::{Batch, Case, Facts, Measurement, Recipe, Subject};
use crate::Wait;
use crate::data::packing::{Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu};
use crate::model::stream::Capacity;
use crate::model::{Model, Scorer};
use crate::optim::{Optimiser, OptimiserKind};
use crate::preference::PreferenceLoss;
use crate::train::pair_step::{LabelledPair, PairStep};
use crate::train::sft_step::SftStep;

/// A sweep over one size, with the others fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Token rows per step, in sequences of 128.
    Tokens,
    /// The length of one sequence.
    Context,
    /// A pair with a prompt of 400 tokens and responses of 50, with the prompt shared or repeated.
    Sharing,
}

impl Sweep {
    /// Summarises a sweep in one number.
    pub fn summary(self, measured: &[Measurement]) -> (&'static str, f64) {
        let spread = |of: &dyn Fn(&Measurement) -> f64| {
            let values = measured.iter().map(of);
            values.clone().fold(0.0, f64::max) / values.fold(f64::INFINITY, f64::min)
        };
        let memory =
            |m: &Measurement| m.facts.memory_bytes.unwrap_or(0) as f64 / m.facts.tokens.unwrap_or(1) as f64;
        match self {
            Sweep::Tokens => {
                ("time per token, largest / smallest", spread(&|m| m.us_per_token().unwrap_or(0.0)))
            }
            Sweep::Context => ("memory per token, largest / smallest", spread(&memory)),
            Sweep::Sharing => ("time, shared / repeated", measured[0].ms / measured[1].ms),
        }
    }
}

const LOSS: PreferenceLoss = PreferenceLoss::Dpo { beta: 0.1 };
/// The weight of a step's gradient.
const WEIGHT: f32 = 1e-3;

/// The kinds of step for each batch of S sequences of L rows, or S pairs whose prompt and responses have L rows in
/// total; and the optimisers' updates.
pub fn steps(batches: &[Batch]) -> Vec<Recipe> {
    let of_batch = |&b: &Batch| {
        let new = |what: &str, make: fn(&Subject, &str, Batch) -> Result<Case>| {
            let name = format!("{what}, {b}");
            Recipe::new("step", name.clone(), move |s| make(s, &name, b))
        };
        [
            new("sft", |s, name, b| s.sft("step", name, &s.trees(b.sequences, 1, 1, b.length))),
            new("dpo", |s, name, b| s.dpo(name, &s.pairs_of(b), true, false)),
            new("dpo, checkpointing", |s, name, b| s.dpo(name, &s.pairs_of(b), true, true)),
            new("score", |s, name, b| {
                s.score("step", name, &s.trees(b.sequences, b.length.div_ceil(2), 2, b.length / 4 + 1))
            }),
        ]
    };
    let update =
        |name: &'static str, kind| Recipe::new("step", name, move |s: &Subject| s.update(name, kind));
    let updates = [
        update("adamw", OptimiserKind::adamw()),
        update("adafactor", OptimiserKind::Adafactor { weight_decay: 0.0 }),
    ];
    batches.iter().flat_map(of_batch).chain(updates).collect()
}

impl Sweep {
    /// Returns its cases, forward and backward pass; `batch` is the size for the sweep over prompt sharing. A case that
    /// is longer than the model's context returns [`Error::TooLong`] when it is created.
    pub fn recipes(self, batch: Batch) -> Vec<Recipe> {
        let sft = |name: &str, sequences, length| {
            let name = format!("{name}, {}", Batch { sequences, length });
            Recipe::new("step", name.clone(), move |s: &Subject| {
                s.sft("step", &name, &s.trees(sequences, 1, 1, length))
            })
        };
        match self {
            Sweep::Tokens => [512, 1024, 2048, 4096, 8192].map(|rows| sft("sft", rows / 128, 128)).into(),
            Sweep::Context => [256, 512, 1024, 2048].map(|rows| sft("sft, one sequence", 1, rows)).into(),
            Sweep::Sharing => {
                let pairs = (batch.sequences * batch.length / 512).max(1);
                [("dpo, prompts shared", true), ("dpo, prompts repeated", false)]
                    .map(|(name, shared)| {
                        let name = format!("{name}, pairs {pairs}");
                        Recipe::new("step", name.clone(), move |s: &Subject| {
                            s.dpo(&name, &s.pairs(pairs, 400, 50), shared, false)
                        })
                    })
                    .into()
            }
        }
    }
}

impl Subject {
    /// Builds `count` prompts of `prompt` tokens, each with `responses` responses of `response` tokens.
    pub(super) fn trees(&self, count: usize, prompt: usize, responses: usize, response: usize) -> Vec<Tree> {
        let vocab = self.model.architecture().vocab;
        let ids = |n: usize, salt: usize| (0..n).map(|i| ((i * 37 + salt * 101) % vocab) as u32).collect();
        let tree = |t: usize| Tree {
            prompt: ids(prompt, t),
            responses: (0..responses).map(|r| ids(response, 100 * (r + 1) + t)).collect(),
        };
        (0..count).map(tree).collect()
    }

    fn pairs_of(&self, b: Batch) -> Vec<LabelledPair> {
        self.pairs(b.sequences, b.length.div_ceil(2), b.length / 4 + 1)
    }

    fn pairs(&self, count: usize, prompt: usize, response: usize) -> Vec<LabelledPair> {
        let pair =
            |tree| LabelledPair { tree, reference: [-100.0, -101.0], label: 1.0, by_reference: [false; 2] };
        self.trees(count, prompt, 2, response).into_iter().map(pair).collect()
    }

    /// The facts of a pass over these trees; `flops` converts the operations of a forward pass.
    pub(super) fn facts(
        &self,
        suite: &'static str,
        name: &str,
        trees: &[Tree],
        flops: fn(Flops) -> f64,
    ) -> Result<Facts> {
        let longest = trees.iter().map(|t| t.length() - 1).max().unwrap_or(0);
        let limit = self.model.architecture().context;
        if longest > limit {
            return Err(Error::TooLong { what: "a sequence of this step".into(), tokens: longest, limit });
        }
        let packed = Packed::new(trees);
        let rows = packed.ids.len();
        let keys: u32 = packed.spans.iter().map(|s| s[1] - s[0] + s[3] - s[2]).sum();
        let targets = packed.target_ids.len() as f64;
        let mut facts = Facts::on(self, suite, name);
        facts.tokens = Some(rows);
        facts.flops = Some(flops(self.forward_flops(rows as f64, keys as f64, targets)));
        Ok(facts)
    }

    /// A case that includes the memory allocated by `build`.
    pub(super) fn step<F: FnMut() -> Result<()> + 'static>(
        &self,
        mut facts: Facts,
        build: impl FnOnce() -> Result<F>,
    ) -> Result<Case> {
        let before = self.gpu.memory().total;
        let mut run = build()?;
        facts.memory_bytes = Some(self.gpu.memory().total - before);
        Case::new(facts, move |times| (0..times).try_for_each(|_| run()))
    }

    /// Next-token training, forward and backward.
    pub(super) fn sft(&self, suite: &'static str, name: &str, trees: &[Tree]) -> Result<Case> {
        let mut facts = self.facts(suite, name, trees, Flops::training)?;
        let new = |gpu: &Gpu, model: &Model| {
            SftStep::new(gpu, model, Capacity::of(trees), false, &Arena::new()).wait()
        };
        facts.launches_per_layer = Some(self.launches_per_layer(|g, m| Ok(new(g, m)?.launch_count()))?);
        let trees = trees.to_vec();
        self.step(facts, || {
            let step = new(&self.gpu, &self.model)?;
            Ok(move || step.run(&trees, WEIGHT).wait().map(drop))
        })
    }

    /// Training on pairs, forward and backward; with `shared`, both responses share one copy of the prompt.
    fn dpo(&self, name: &str, pairs: &[LabelledPair], shared: bool, checkpointing: bool) -> Result<Case> {
        let of_pair = |pair: &LabelledPair| match shared {
            true => vec![pair.tree.clone()],
            false => pair.tree.unshared(),
        };
        let trees: Vec<Tree> = pairs.iter().flat_map(of_pair).collect();
        let mut facts = self.facts("step", name, &trees, Flops::training)?;
        let new = |gpu: &Gpu, model: &Model| {
            PairStep::new(gpu, model, LOSS, Capacity::of(&trees), checkpointing, &Arena::new()).wait()
        };
        facts.launches_per_layer = Some(self.launches_per_layer(|g, m| Ok(new(g, m)?.launch_count()))?);
        let pairs = pairs.to_vec();
        self.step(facts, || {
            let step = new(&self.gpu, &self.model)?;
            Ok(move || match shared {
                true => step.run(&pairs, WEIGHT).wait().map(drop),
                false => step.run_unshared(&pairs, WEIGHT).wait().map(drop),
            })
        })
    }

    /// Log-probabilities, forward only.
    pub(super) fn score(&self, suite: &'static str, name: &str, trees: &[Tree]) -> Result<Case> {
        let facts = self.facts(suite, name, trees, Flops::forward)?;
        let trees = trees.to_vec();
        self.step(facts, || {
            let scorer = Scorer::new(&self.gpu, &self.model, Capacity::of(&trees), &Arena::new()).wait()?;
            Ok(move || scorer.score(&trees).wait().map(drop))
        })
    }

    /// The optimiser's update of all weights, with a tiny learning rate.
    fn update(&self, name: &str, kind: OptimiserKind) -> Result<Case> {
        self.step(Facts::on(self, "step", name), || {
            let mut optimiser =
                Optimiser::new(&self.gpu, self.model.trained(), kind, 1.0, &Arena::new()).wait()?;
            Ok(move || optimiser.update(1e-9).wait().map(drop))
        })
    }
}
