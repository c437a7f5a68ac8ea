//! The forward pass of any [`Architecture`], recorded over a stream of token rows. Its backward pass follows from
//! the ops' rules.

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
    /// Key ranges, (N, 4); their sizes are the positions.
    pub spans: Tensor,
    /// Where keys end being seen, (N, 1); needed for gradients.
    pub ends: Option<Tensor>,
    /// The tokens' inverse; needed for the embedding's gradient.
    pub inverse: Option<Inverse>,
    /// The positions' inverse; needed for the gradient of learned ones.
    pub positions: Option<Inverse>,
}

/// Where attention finds keys and values.
#[derive(Clone)]
pub(crate) enum Keys {
    /// In the stream itself.
    Stream,
    /// In the stream itself, after `keys` tokens in a cache that every row sees.
    After {
        /// The cache.
        cache: Arc<KvCache>,
        /// How many of its tokens count.
        keys: Dim,
    },
    /// In a cache, to which the stream's own are written first, each at the last row that it sees.
    Cache {
        /// The cache.
        cache: Arc<KvCache>,
        /// Whether every row belongs to another sequence: decoding.
        apart: bool,
    },
}

impl Model {
    /// The last layer's output, (N, C), before the final norm. With `checkpointing`, a layer's activations are
    /// computed again in the backward pass rather than kept.
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

    /// log p of each target and the entropy of its distribution, and where `squares` are wanted log Σ p² of it.
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

    /// How good a reward model finds the text that ends at each target's row, (T, 1).
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

    /// What the head takes of each target's row, (T, C).
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

    /// The final norm of rows of [`Model::hidden`]: (T, C), what the head takes.
    pub(crate) fn final_norm(&self, r: &mut Recorder, hidden: Tensor) -> Result<Tensor> {
        let norm = self.state.norm(r, &self.state.architecture.names.final_norm());
        ops::norm(r, hidden, &norm)
    }

    /// What becomes of the head's products.
    pub(crate) fn logit_transform(&self) -> LogitTransform {
        self.state.architecture.logits
    }

    /// The output head, (V, C), or of a reward model (1, C).
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

    /// A block's result, normalised by `after` where there is one, scaled, added to the residual stream.
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

    /// A layer's norm, where the family has it.
    fn layer_norm(&self, r: &mut Recorder, norm: LayerNorm, layer: usize) -> Option<Norm> {
        let a = &self.architecture;
        a.block.norms().contains(&norm).then(|| self.norm(r, &a.names.norm(norm, layer)))
    }

    fn norm(&self, r: &mut Recorder, module: &str) -> Norm {
        let architecture::Norm { kind, epsilon, bias } = self.architecture.norm;
        let mut vector = |what: &str| self.base.bind_vectors(r, &[format!("{module}.{what}")]);
        Norm { weight: vector("weight"), bias: bias.then(|| vector("bias")), eps: epsilon, kind }
    }

    /// Those of the projections that the family has, which read the same rows, with their LoRA terms.
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

    /// The LoRA adapter's term of a projection, where it has one.
    fn lora(&self, r: &mut Recorder, projection: Projection, layer: usize) -> Option<Lora> {
        let adapter = self.adapter.as_ref()?;
        let term = adapter.layout.term(layer, projection)?;
        let [a, b] = adapter.layout.tensors(term).map(|name| adapter.weights.bind(r, &name).whole());
        Some(Lora { a, b, scale: adapter.layout.scale(term) })
    }
}
