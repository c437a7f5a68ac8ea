//! The forward pass of any [`Architecture`], recorded over a stream of token rows. The backward pass follows from the
//! gradient rules of the ops.

use std::sync::Arc;

use super::architecture::{self, Block, RATING_HEAD};
use super::kv_cache::KvCache;
use super::names::LayerNorm;
use super::names::Projection::{self, *};
use super::stream::TargetTensors;
use super::{Model, ModelState};
use crate::error::Result;
use crate::gpu::{Dim, Recorder, Tensor};
use crate::ops::{
    self, AttentionShape, Inverse, KeySource, Linear, LogProb, LogitTransform, Lora, Matrix, Norm, Rotary,
    VOCAB_CHUNK,
};

/// The rows of a stream in a recording, see [`crate::data::packing::Packed`].
#[derive(Clone, Copy)]
pub(crate) struct StreamTensors {
    /// Token ids, (N, 1).
    pub ids: Tensor,
    /// Key ranges, (N, 4); the sizes of the ranges give the positions.
    pub spans: Tensor,
    /// The row at which each key stops being visible, (N, 1); needed for gradients.
    pub ends: Option<Tensor>,
    /// The inverse index of the token ids; needed for the gradient of the embedding.
    pub inverse: Option<Inverse>,
    /// The inverse index of the positions; needed for the gradient of learned position embeddings.
    pub positions: Option<Inverse>,
}

/// Where attention reads keys and values.
#[derive(Clone)]
pub(crate) enum Keys {
    /// In the stream itself.
    Stream,
    /// In the rows of the stream, preceded by the first `keys` tokens of a cache, which every row sees.
    After {
        /// The cache.
        cache: Arc<KvCache>,
        /// The number of its tokens that are read.
        keys: Dim,
    },
    /// In a cache. The stream's own keys and values are written to it first, each at the last row of its key range.
    Cache {
        /// The cache.
        cache: Arc<KvCache>,
        /// Whether every row belongs to another sequence, as in decoding.
        apart: bool,
    },
}

impl Model {
    /// The output of the last layer, (N, C), before the final norm. With `checkpointing`, the activations of each layer
    /// are recomputed in the backward pass instead of kept.
    pub(crate) fn hidden(
        &self,
        r: &mut Recorder,
        stream: &StreamTensors,
        keys: &Keys,
        checkpointing: bool,
    ) -> Result<Tensor> {
        let a = &self.state.architecture;
        let embedding = self.state.base.bind(r, &a.names.embedding());
        let mut x = ops::embedding(r, &embedding, stream.ids, stream.inverse, a.embedding_scale)?;
        if a.learned_positions {
            let table = self.state.base.bind(r, &a.names.positions());
            let before = match keys {
                Keys::After { keys, .. } => *keys,
                Keys::Stream | Keys::Cache { .. } => Dim::Fixed(0),
            };
            let learned = ops::position_embedding(r, &table, stream.spans, before, stream.positions)?;
            x = ops::residual_add(r, x, learned)?;
        }
        let rows = stream.ids.rows.max() as usize;
        let positions = match keys {
            Keys::Stream => rows,
            Keys::After { keys, .. } => keys.max() as usize + rows,
            Keys::Cache { cache, .. } => cache.longest(),
        };
        let tables =
            self.state.ropes.iter().map(|rope| rope.bind(r, positions)).collect::<Result<Vec<_>>>()?;
        for layer in 0..a.layers {
            let (state, stream, keys, tables) = (self.state.clone(), *stream, keys.clone(), tables.clone());
            let record = move |r: &mut Recorder| state.layer(r, layer, x, &stream, &tables, &keys);
            x = match checkpointing {
                true => r.checkpoint(record)?,
                false => record(r)?,
            };
        }
        Ok(x)
    }

    /// log p of each target and the entropy of its distribution; with `squares` also log Σ p² over the vocabulary.
    pub(crate) fn score(
        &self,
        r: &mut Recorder,
        stream: &StreamTensors,
        targets: &TargetTensors,
        keys: &Keys,
        checkpointing: bool,
        squares: bool,
    ) -> Result<LogProb> {
        let rows = self.target_rows(r, stream, targets, keys, checkpointing)?;
        let head = self.head(r);
        let logprob = if squares { ops::logprob_with_squares } else { ops::logprob };
        logprob(r, rows, &head, targets.ids, VOCAB_CHUNK, self.logit_transform())
    }

    /// A reward model's score of the text that ends at each target's row, (T, 1).
    pub(crate) fn rate(
        &self,
        r: &mut Recorder,
        stream: &StreamTensors,
        targets: &TargetTensors,
        checkpointing: bool,
    ) -> Result<Tensor> {
        let rows = self.target_rows(r, stream, targets, &Keys::Stream, checkpointing)?;
        let head = match self.adapter().filter(|adapter| adapter.layout.rates()) {
            Some(adapter) => adapter.weights.bind(r, &adapter.layout.head()),
            None => self.head(r),
        };
        ops::linear(r, rows, &head.into(), None)
    }

    /// The input of the head for each target's row, (T, C).
    fn target_rows(
        &self,
        r: &mut Recorder,
        stream: &StreamTensors,
        targets: &TargetTensors,
        keys: &Keys,
        checkpointing: bool,
    ) -> Result<Tensor> {
        let hidden = self.hidden(r, stream, keys, checkpointing)?;
        let picked = ops::gather_rows(r, &hidden.into(), targets.rows, targets.inverse)?;
        self.final_norm(r, picked)
    }

    /// Applies the final norm to rows of [`Model::hidden`]: (T, C), the input of the head.
    pub(crate) fn final_norm(&self, r: &mut Recorder, hidden: Tensor) -> Result<Tensor> {
        let norm = self.state.norm(r, &self.state.architecture.names.final_norm());
        ops::norm(r, hidden, &norm)
    }

    /// The transform from the head's output to logits.
    pub(crate) fn logit_transform(&self) -> LogitTransform {
        self.state.architecture.logits
    }

    /// The output head, (V, C); (1, C) for a reward model.
    pub(crate) fn head(&self, r: &mut Recorder) -> Matrix {
        let a = &self.state.architecture;
        let name = match (a.rates, a.tied) {
            (true, _) => RATING_HEAD.to_owned(),
            (false, true) => a.names.embedding(),
            (false, false) => a.names.head(),
        };
        self.state.base.bind(r, &name)
    }
}

impl ModelState {
    fn layer(
        &self,
        r: &mut Recorder,
        layer: usize,
        x: Tensor,
        s: &StreamTensors,
        tables: &[Tensor],
        keys: &Keys,
    ) -> Result<Tensor> {
        let a = &self.architecture;
        let of_layer = a.attention.layers[layer];
        let keys = match keys {
            Keys::Stream => KeySource::Rows { ends: s.ends },
            Keys::After { cache, keys } => KeySource::After { kv: cache.bind(r, layer), keys: *keys },
            Keys::Cache { cache, apart } => KeySource::Cache { kv: cache.bind(r, layer), apart: *apart },
        };
        let attention = ops::SelfAttention {
            norm: self.layer_norm(r, LayerNorm::Attention, layer),
            qkv: self.linear(r, &[Query, Key, Value, QueryKeyValue], layer),
            head_norms: a.attention.qk_norm.map(|_| {
                [LayerNorm::Query, LayerNorm::Key].map(|norm| self.norm(r, &a.names.norm(norm, layer)))
            }),
            rotary: of_layer.rope.map(|rope| Rotary {
                table: tables[rope],
                rotated: a.attention.ropes[rope].rotated,
                interleaved: false,
            }),
            shape: AttentionShape {
                heads: a.heads,
                kv_heads: a.kv_heads,
                head_dim: a.head_dim,
                scale: a.attention.scale,
                soft_cap: a.attention.soft_cap,
                window: of_layer.window,
            },
        };
        let mixed = ops::self_attention(r, x, &attention, s.spans, keys)?;
        let output = self.linear(r, &[Output], layer);
        let after = self.layer_norm(r, LayerNorm::AttentionOutput, layer);
        let y = self.add(r, x, after, |r, residual| ops::linear(r, mixed, &output, residual))?;
        let feed_forward = ops::FeedForward {
            norm: self.layer_norm(r, LayerNorm::FeedForward, layer),
            up: self.linear(r, &[Gate, Up, GateUp], layer),
            gated: a.feed_forward.gated,
            activation: a.feed_forward.activation,
            down: self.linear(r, &[Down], layer),
        };
        let input = if a.block == Block::Parallel { x } else { y };
        let after = self.layer_norm(r, LayerNorm::FeedForwardOutput, layer);
        self.add(r, y, after, |r, residual| ops::feed_forward(r, input, &feed_forward, residual))
    }

    /// Normalises a block's output by `after` if it is given, scales it and adds it to the residual stream.
    fn add(
        &self,
        r: &mut Recorder,
        residual: Tensor,
        after: Option<Norm>,
        block: impl FnOnce(&mut Recorder, Option<Tensor>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let scale = self.architecture.residual_scale;
        if after.is_none() && scale == 1.0 {
            return block(r, Some(residual));
        }
        let mut y = block(r, None)?;
        if let Some(norm) = after {
            y = ops::norm(r, y, &norm)?;
        }
        ops::scaled_residual_add(r, residual, y, scale)
    }

    /// The norm of a layer, if the family has it.
    fn layer_norm(&self, r: &mut Recorder, norm: LayerNorm, layer: usize) -> Option<Norm> {
        let a = &self.architecture;
        a.block.norms().contains(&norm).then(|| self.norm(r, &a.names.norm(norm, layer)))
    }

    fn norm(&self, r: &mut Recorder, module: &str) -> Norm {
        let architecture::Norm { kind, epsilon, bias } = self.architecture.norm;
        let mut vector = |what: &str| self.base.bind_vectors(r, &[format!("{module}.{what}")]);
        Norm { weight: vector("weight"), bias: bias.then(|| vector("bias")), eps: epsilon, kind }
    }

    /// The projections of the list that the family has, stacked, with their LoRA terms. All of them read the same rows.
    fn linear(&self, r: &mut Recorder, projections: &[Projection], layer: usize) -> Linear {
        let a = &self.architecture;
        let has = |projection: &Projection| a.projections().any(|known| known == *projection);
        let projections: Vec<Projection> = projections.iter().copied().filter(has).collect();
        let names = |what: &str| -> Vec<String> {
            projections.iter().map(|p| format!("{}.{what}", a.names.module(*p, layer))).collect()
        };
        let weights = self.base.bind_stacked(r, &names("weight"));
        let bias = a.has_bias(projections[0]).then(|| self.base.bind_vectors(r, &names("bias")));
        let mut lora = Vec::new();
        let mut first = 0;
        for projection in &projections {
            lora.extend(self.lora(r, *projection, layer).map(|term| (first, term)));
            first += a.projection_shape(*projection).0;
        }
        Linear { weights, bias, lora }
    }

    /// The LoRA term of a projection, if it has one.
    fn lora(&self, r: &mut Recorder, projection: Projection, layer: usize) -> Option<Lora> {
        let adapter = self.adapter.as_ref()?;
        let term = adapter.layout.term(layer, projection)?;
        let [a, b] = adapter.layout.tensors(term).map(|name| adapter.weights.bind(r, &name).whole());
        Some(Lora { a, b, scale: adapter.layout.scale(term) })
    }
}
