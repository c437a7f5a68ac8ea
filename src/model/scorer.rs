//! Log-probabilities of given tokens, for the reference model, for judges and for `oaif score`.

use std::borrow::Cow;
use std::sync::Arc;

use super::kv_cache::{KvCache, KvPin};
use super::stream::{Capacity, Stream, check_ids, extent};
use super::{Architecture, Keys, Model};
use crate::data::packing::{ChoiceTree, Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Dim, Gpu, Plan, PlanOptions, Recorder, Tensor};

/// A forward pass of one model over packed trees, recorded once.
pub struct Scorer {
    gpu: Gpu,
    plan: Plan,
    stream: Arc<Stream>,
    logp: Tensor,
    entropy: Tensor,
    /// The common beginning of trees whose keys and values are cached.
    preamble: Vec<u32>,
    /// Keeps the cached keys and values.
    _kept: Option<KvPin>,
}

/// The log-probabilities of the tokens of one response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// log p of each response token, in nats.
    pub logps: Vec<f32>,
    /// The entropy of the distribution at each response token, in nats.
    pub entropies: Vec<f32>,
}

impl Scored {
    /// log p of the whole response.
    pub fn logp(&self) -> f64 {
        self.logps.iter().map(|l| *l as f64).sum()
    }
}

/// The number of tokens in one pass of [`score_all`], unless a single sequence is longer.
const PASS_TOKENS: usize = 4096;

/// Scores every response of every tree, in order, with a new scorer. `watch` is called with the number of responses
/// scored so far.
///
/// # Errors
/// As [`Scorer::new`] and [`Scorer::score`].
pub async fn score_all(
    model: &Model,
    trees: &[Tree],
    watch: &mut (dyn FnMut(usize) + Send),
) -> Result<Vec<Scored>> {
    let tokens = trees.iter().map(Tree::length).max().unwrap_or(1).max(PASS_TOKENS);
    let capacity = Capacity { tokens, targets: tokens, sequences: 256 };
    Scorer::new(model.gpu(), model, capacity, &Arena::new()).await?.score_watched(trees, watch).await
}

impl Scorer {
    /// Records the pass for streams up to `capacity`.
    ///
    /// # Errors
    /// [`Error::Config`] for a capacity that is empty or too large, and for a `gpu` or an arena that is not the
    /// model's; memory errors.
    pub async fn new(gpu: &Gpu, model: &Model, capacity: Capacity, arena: &Arena) -> Result<Scorer> {
        let stream = Arc::new(Stream::new(gpu, model, capacity, false)?);
        Scorer::of_stream(stream, model, arena).await
    }

    /// As [`Scorer::new`], on buffers that it shares with another plan for the same batches.
    pub(crate) async fn of_stream(stream: Arc<Stream>, model: &Model, arena: &Arena) -> Result<Scorer> {
        Scorer::record(model, Keys::Stream, Vec::new(), stream, arena).await
    }

    /// As [`Scorer::new`], for trees that mostly begin with `preamble`, whose keys and values are computed now and
    /// kept. The model's weights must not change afterwards.
    ///
    /// # Errors
    /// As [`Scorer::new`]; also for a preamble that is empty, fills the model's context or has an unknown token id.
    pub async fn after(
        gpu: &Gpu,
        model: &Model,
        preamble: &[u32],
        capacity: Capacity,
        arena: &Arena,
    ) -> Result<Scorer> {
        let Architecture { vocab, context, .. } = *model.architecture();
        check_ids(vocab, || "preamble".into(), preamble)?;
        if preamble.len() >= context {
            let what = "the preamble".to_owned();
            return Err(Error::TooLong { what, tokens: preamble.len(), limit: context - 1 });
        }
        let cache = Arc::new(KvCache::new(gpu, model.architecture(), preamble.len(), preamble.len())?);
        let keys = Dim::Live { index: extent::PREAMBLE, max: preamble.len() as u32 };
        let after = Keys::After { cache: cache.clone(), keys };
        let (kept, _) = cache.pin();
        let stream = Arc::new(Stream::new(gpu, model, capacity, false)?);
        let scorer = Scorer::record(model, after, preamble.to_vec(), stream, arena).await?;
        fill(gpu, model, &cache, preamble, arena).await?;
        Ok(Scorer { _kept: Some(kept), ..scorer })
    }

    async fn record(
        model: &Model,
        keys: Keys,
        preamble: Vec<u32>,
        stream: Arc<Stream>,
        arena: &Arena,
    ) -> Result<Scorer> {
        let gpu = model.gpu();
        let mut r = Recorder::new(gpu);
        let (tokens, targets) = stream.bind(&mut r);
        let scored = model.score(&mut r, &tokens, &targets, &keys, false, false)?;
        r.output(scored.logp);
        r.output(scored.entropy);
        let plan = Plan::new(gpu, r, arena, PlanOptions::default()).await?;
        Ok(Scorer {
            gpu: gpu.clone(),
            plan,
            stream,
            logp: scored.logp,
            entropy: scored.entropy,
            preamble,
            _kept: None,
        })
    }

    /// The largest stream of one pass; [`Scorer::score`] takes more in several passes.
    pub fn capacity(&self) -> Capacity {
        self.stream.capacity()
    }

    /// Scores every response of every tree, in order.
    ///
    /// # Errors
    /// Checked before anything runs, for a tree that the model cannot read or that exceeds the capacity:
    /// [`Error::Config`] for an empty prompt or response or a token id outside the vocabulary, [`Error::TooLong`] for a
    /// sequence longer than the context.
    pub async fn score(&self, trees: &[Tree]) -> Result<Vec<Scored>> {
        self.score_watched(trees, &mut |_| ()).await
    }

    async fn score_watched(
        &self,
        trees: &[Tree],
        watch: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<Scored>> {
        self.stream.check(trees)?;
        let trees = self.unread(trees, |tree| &mut tree.prompt);
        self.run_all(&trees, Capacity::of_tree, |batch| Packed::new(batch), watch).await
    }

    /// Returns for every branch of every tree, in order, log p of each of the tree's choices.
    ///
    /// # Errors
    /// As [`Scorer::score`]; also for a tree without choices or an empty branch.
    pub async fn score_choices(&self, trees: &[ChoiceTree]) -> Result<Vec<Scored>> {
        self.stream.check_choices(trees)?;
        let trees = self.unread(trees, |tree| &mut tree.prompt);
        self.run_all(&trees, Capacity::of_choices, |batch| Packed::of_choices(batch), &mut |_| ()).await
    }

    /// Scores trees in as many passes as the capacity requires.
    async fn run_all<T: Clone>(
        &self,
        trees: &[(usize, Cow<'_, [T]>)],
        size: impl Fn(&T) -> Capacity,
        pack: impl Fn(&[T]) -> Packed,
        watch: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<Scored>> {
        let mut passes = Vec::new();
        for (known, trees) in trees {
            let batches = self.capacity().batches(trees, usize::MAX, &size)?;
            passes.extend(batches.into_iter().map(|batch| (*known, batch)));
        }
        let mut out = Vec::new();
        for (known, batch) in passes {
            self.run(known, &pack(batch), &mut out).await?;
            watch(out.len());
        }
        Ok(out)
    }

    /// Removes the preamble from the trees that begin with it. Consecutive trees are grouped by whether they do, each
    /// group with the number of tokens removed.
    fn unread<'a, T: Clone>(
        &self,
        trees: &'a [T],
        prompt: fn(&mut T) -> &mut Vec<u32>,
    ) -> Vec<(usize, Cow<'a, [T]>)> {
        if self.preamble.is_empty() {
            return vec![(0, trees.into())];
        }
        let mut out: Vec<(usize, Cow<'a, [T]>)> = Vec::new();
        for tree in trees {
            let mut tree = tree.clone();
            let ids = prompt(&mut tree);
            let begins = ids.len() > self.preamble.len() && ids.starts_with(&self.preamble);
            let known = if begins { self.preamble.len() } else { 0 };
            ids.drain(..known);
            match out.last_mut().filter(|(last, _)| *last == known) {
                Some((_, run)) => run.to_mut().push(tree),
                None => out.push((known, vec![tree].into())),
            }
        }
        out
    }

    /// Scores trees whose first `known` tokens, those of the preamble, were removed.
    async fn run(&self, known: usize, packed: &Packed, out: &mut Vec<Scored>) -> Result<()> {
        let turn = self.gpu.turn().await?;
        let mut live = self.stream.upload(packed)?;
        live.extents[extent::PREAMBLE as usize] = known as u32;
        live.keys += known as u32;
        let running = self.plan.submit(&live, 1)?;
        drop(turn);
        let outputs = running.outputs().await?;
        let (logps, entropies) = (outputs.f32(self.logp), outputs.f32(self.entropy));
        for bounds in packed.offsets.windows(2) {
            let range = bounds[0] as usize..bounds[1] as usize;
            out.push(Scored { logps: logps[range.clone()].to_vec(), entropies: entropies[range].to_vec() });
        }
        Ok(())
    }
}

/// Computes the keys and values of a text and writes them to the cache.
async fn fill(gpu: &Gpu, model: &Model, cache: &Arc<KvCache>, ids: &[u32], arena: &Arena) -> Result<()> {
    let capacity = Capacity { tokens: ids.len(), targets: 1, sequences: 1 };
    let stream = Stream::new(gpu, model, capacity, false)?;
    let mut r = Recorder::new(gpu);
    let (tokens, _) = stream.bind(&mut r);
    model.hidden(&mut r, &tokens, &Keys::Cache { cache: cache.clone(), apart: false }, false)?;
    let plan = Plan::new(gpu, r, arena, PlanOptions::default()).await?;
    if gpu.is_measuring() {
        return Ok(());
    }
    let text = Tree { prompt: ids.to_vec(), responses: Vec::new() };
    let turn = gpu.turn().await?;
    let running = plan.submit(&stream.upload(&Packed::new([&text]))?, 1)?;
    drop(turn);
    running.outputs().await.map(drop)
}
