//! Whole steps: forward and backward pass, scoring, the optimiser's update; and sweeps over one size.

use super::{Case, Facts, Measurement, Subject};
use crate::annotate::names;
use crate::data::packing::{Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu};
use crate::model::stream::Capacity;
use crate::model::{Model, Scorer};
use crate::optim::{Optimiser, OptimiserKind};
use crate::preference::PreferenceLoss;
use crate::train::pair_step::{LabelledPair, PairStep};
use crate::train::sft_step::SftStep;

/// One size that grows while the rest stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Token rows of a step, in sequences of 128.
    Tokens,
    /// The length of one sequence.
    Context,
    /// A pair's prompt of 400 tokens, shared by its responses of 50 or repeated.
    Sharing,
}

impl Sweep {
    /// What users call them.
    pub const NAMES: [&str; 3] = ["tokens", "context", "sharing"];

    /// The sweep of this name.
    ///
    /// # Errors
    /// [`Error::Config`] that names the nearest one.
    pub fn named(name: &str) -> Result<Sweep> {
        match name {
            "tokens" => Ok(Sweep::Tokens),
            "context" => Ok(Sweep::Context),
            "sharing" => Ok(Sweep::Sharing),
            other => Err(names::unknown("sweep", other, &Sweep::NAMES)),
        }
    }

    /// What a sweep is about, in one number.
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
/// A step's gradient counts this much.
const WEIGHT: f32 = 1e-3;

type Recipe = fn(&Subject) -> Result<Case>;

impl Subject {
    /// The kinds of step, each made when it is asked for, so that no two need memory at the same time.
    pub fn steps(&self) -> impl Iterator<Item = Result<Case>> {
        let recipes: [Recipe; 6] = [
            |s| s.sft("sft", &s.trees(s.sequences, 1, 1, s.length)),
            |s| s.dpo("dpo", &s.pairs(s.sequences, s.length / 2, s.length / 4 + 1), true, false),
            |s| {
                s.dpo("dpo, checkpointing", &s.pairs(s.sequences, s.length / 2, s.length / 4 + 1), true, true)
            },
            |s| s.score(&s.trees(s.sequences, s.length / 2, 2, s.length / 4 + 1)),
            |s| s.update("adamw", OptimiserKind::adamw()),
            |s| s.update("adafactor", OptimiserKind::Adafactor { weight_decay: 0.0 }),
        ];
        recipes.into_iter().map(move |recipe| recipe(self))
    }

    /// A sweep's cases, forward and backward pass.
    ///
    /// # Errors
    /// [`Error::TooLong`] where the model does not take that many tokens.
    pub fn sweep(&self, sweep: Sweep) -> Result<Vec<Case>> {
        match sweep {
            Sweep::Tokens => {
                let cases = [512, 1024, 2048, 4096, 8192].map(|rows| self.trees(rows / 128, 1, 1, 128));
                cases.iter().map(|trees| self.sft("sft", trees)).collect()
            }
            Sweep::Context => {
                let cases = [256, 512, 1024, 2048].map(|rows| self.trees(1, 1, 1, rows));
                cases.iter().map(|trees| self.sft("sft, one sequence", trees)).collect()
            }
            Sweep::Sharing => {
                let pairs = self.pairs((self.sequences * self.length / 512).max(1), 400, 50);
                [("dpo, prompts shared", true), ("dpo, prompts repeated", false)]
                    .into_iter()
                    .map(|(name, shared)| self.dpo(name, &pairs, shared, false))
                    .collect()
            }
        }
    }

    /// `count` prompts of `prompt` tokens, each with `responses` of `response` tokens.
    fn trees(&self, count: usize, prompt: usize, responses: usize, response: usize) -> Vec<Tree> {
        let vocab = self.model.architecture().vocab;
        let ids = |n: usize, salt: usize| (0..n).map(|i| ((i * 37 + salt * 101) % vocab) as u32).collect();
        let tree = |t: usize| Tree {
            prompt: ids(prompt, t),
            responses: (0..responses).map(|r| ids(response, 100 * (r + 1) + t)).collect(),
        };
        (0..count).map(tree).collect()
    }

    fn pairs(&self, count: usize, prompt: usize, response: usize) -> Vec<LabelledPair> {
        let pair = |tree| LabelledPair { tree, reference: [-100.0, -101.0], label: 1.0 };
        self.trees(count, prompt, 2, response).into_iter().map(pair).collect()
    }

    /// What is known of a step over these trees: `passes` times the operations of a forward pass.
    fn facts(&self, name: &str, trees: &[Tree], passes: f64) -> Result<Facts> {
        let longest = trees.iter().map(|t| t.length() - 1).max().unwrap_or(0);
        let limit = self.model.architecture().context;
        if longest > limit {
            return Err(Error::TooLong { what: "a sequence of this step".into(), tokens: longest, limit });
        }
        let packed = Packed::new(trees);
        let rows = packed.ids.len();
        let keys: u32 = packed.spans.iter().map(|s| s[1] - s[0] + s[3] - s[2]).sum();
        let targets = packed.target_ids.len() as f64;
        let mut facts = Facts::new("step", format!("{name}, N {rows}"), self.label());
        facts.tokens = Some(rows);
        facts.flops = Some(passes * self.forward_flops(rows as f64, keys as f64, targets));
        Ok(facts)
    }

    /// A case, with the memory that `build` took.
    fn step<F: FnMut() -> Result<()> + 'static>(
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
    fn sft(&self, name: &str, trees: &[Tree]) -> Result<Case> {
        let mut facts = self.facts(name, trees, 3.0)?;
        let new =
            |gpu: &Gpu, model: &Model| SftStep::new(gpu, model, Capacity::of(trees), false, &Arena::new());
        facts.launches_per_layer = Some(self.launches_per_layer(|g, m| Ok(new(g, m)?.launch_count()))?);
        let trees = trees.to_vec();
        self.step(facts, || {
            let step = new(&self.gpu, &self.model)?;
            Ok(move || step.run(&trees, WEIGHT).map(drop))
        })
    }

    /// Training on pairs, forward and backward; `shared`: a prompt is there once for both responses.
    fn dpo(&self, name: &str, pairs: &[LabelledPair], shared: bool, checkpointing: bool) -> Result<Case> {
        let of_pair = |pair: &LabelledPair| match shared {
            true => vec![pair.tree.clone()],
            false => pair.tree.unshared(),
        };
        let trees: Vec<Tree> = pairs.iter().flat_map(of_pair).collect();
        let mut facts = self.facts(name, &trees, 3.0)?;
        let new = |gpu: &Gpu, model: &Model| {
            PairStep::new(gpu, model, LOSS, Capacity::of(&trees), checkpointing, &Arena::new())
        };
        facts.launches_per_layer = Some(self.launches_per_layer(|g, m| Ok(new(g, m)?.launch_count()))?);
        let pairs = pairs.to_vec();
        self.step(facts, || {
            let step = new(&self.gpu, &self.model)?;
            let run = if shared { PairStep::run } else { PairStep::run_unshared };
            Ok(move || run(&step, &pairs, WEIGHT).map(drop))
        })
    }

    /// Log-probabilities, forward alone.
    fn score(&self, trees: &[Tree]) -> Result<Case> {
        let facts = self.facts("score", trees, 1.0)?;
        let trees = trees.to_vec();
        self.step(facts, || {
            let scorer = Scorer::new(&self.gpu, &self.model, Capacity::of(&trees), &Arena::new())?;
            Ok(move || scorer.score(&trees).map(drop))
        })
    }

    /// The optimiser's update of all weights, by a learning rate that hardly moves them.
    fn update(&self, name: &str, kind: OptimiserKind) -> Result<Case> {
        self.step(Facts::new("step", name, self.label()), || {
            let mut optimiser = Optimiser::new(&self.gpu, self.model.trained(), kind, 1.0, &Arena::new())?;
            Ok(move || optimiser.update(1e-9).map(drop))
        })
    }
}
