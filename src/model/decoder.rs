//! The forward pass of any [`Architecture`], recorded over a stream of token rows. Its backward pass follows from
//! the ops' rules.

use std::sync::Arc;

use super::architecture::{self, EMBEDDING, FINAL_NORM, FeedForward, HEAD, LayerNorm, Projection};
use super::kv_cache::KvCache;
use super::{Model, ModelState};
use crate::error::Result;
use crate::gpu::{Dim, Recorder, Tensor};
use crate::ops::{
    self, Activation, AttentionShape, Inverse, KeySource, Linear, LogitTransform, Lora, Matrix, Norm, Rotary,
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
        let embedding = self.state.base.bind(r, EMBEDDING);
        let mut x = ops::gather_rows(r, &embedding, stream.ids, stream.inverse)?;
        let rows = stream.ids.rows.max() as usize;
        let positions = match keys {
            Keys::Stream => rows,
            Keys::After { keys, .. } => keys.max() as usize + rows,
            Keys::Cache { cache, .. } => cache.longest(),
        };
        let table = self.state.rope.bind(r, positions)?;
        for layer in 0..self.state.architecture.layers {
            let (state, stream, keys) = (self.state.clone(), *stream, keys.clone());
            let record = move |r: &mut Recorder| state.layer(r, layer, x, &stream, table, &keys);
            x = match checkpointing {
                true => r.checkpoint(record)?,
                false => record(r)?,
            };
        }
        Ok(x)
    }

    /// The final norm of rows of [`Model::hidden`]: (T, C), what the head takes.
    pub(crate) fn final_norm(&self, r: &mut Recorder, hidden: Tensor) -> Result<Tensor> {
        let norm = self.state.norm(r, FINAL_NORM);
        ops::norm(r, hidden, &norm)
    }

    /// What becomes of the head's products.
    pub(crate) fn logit_transform(&self) -> LogitTransform {
        LogitTransform::default()
    }

    /// The output head, (V, C).
    pub(crate) fn head(&self, r: &mut Recorder) -> Matrix {
        let name = if self.state.architecture.tied { EMBEDDING } else { HEAD };
        self.state.base.bind(r, name)
    }
}

impl ModelState {
    fn layer(
        &self,
        r: &mut Recorder,
        layer: usize,
        x: Tensor,
        s: &StreamTensors,
        table: Tensor,
        keys: &Keys,
    ) -> Result<Tensor> {
        let a = &self.architecture;
        let FeedForward::SwiGlu = a.feed_forward;
        let keys = match keys {
            Keys::Stream => KeySource::Rows { ends: s.ends },
            Keys::After { cache, keys } => KeySource::After { kv: cache.bind(r, layer), keys: *keys },
            Keys::Cache { cache, apart } => KeySource::Cache { kv: cache.bind(r, layer), apart: *apart },
        };
        let attention = ops::SelfAttention {
            norm: Some(self.norm(r, &LayerNorm::Attention.tensor(layer))),
            qkv: self.linear(r, &Projection::QKV, layer),
            head_norms: None,
            rotary: Some(Rotary { table, rotated: a.head_dim, interleaved: false }),
            shape: AttentionShape::new(a.heads, a.kv_heads, a.head_dim),
        };
        let mixed = ops::self_attention(r, x, &attention, s.spans, keys)?;
        let output = self.linear(r, &[Projection::Output], layer);
        let x = ops::linear(r, mixed, &output, Some(x))?;
        let feed_forward = ops::FeedForward {
            norm: Some(self.norm(r, &LayerNorm::FeedForward.tensor(layer))),
            up: self.linear(r, &Projection::GATED, layer),
            gated: true,
            activation: Activation::Silu,
            down: self.linear(r, &[Projection::Down], layer),
        };
        ops::feed_forward(r, x, &feed_forward, Some(x))
    }

    fn norm(&self, r: &mut Recorder, weight: &str) -> Norm {
        let architecture::Norm::Rms { epsilon } = self.architecture.norm;
        Norm::rms(self.base.bind(r, weight).whole(), epsilon)
    }

    /// The projections that read the same rows, with their LoRA terms.
    fn linear(&self, r: &mut Recorder, projections: &[Projection], layer: usize) -> Linear {
        let names: Vec<String> = projections.iter().map(|p| p.weight(layer)).collect();
        let weights = match &names[..] {
            [one] => self.base.bind(r, one),
            _ => self.base.bind_stacked(r, &names),
        };
        let mut lora = Vec::new();
        let mut first = 0;
        for projection in projections {
            lora.extend(self.lora(r, *projection, layer).map(|term| (first, term)));
            first += self.architecture.projection_shape(*projection).0;
        }
        Linear { weights, bias: None, lora }
    }

    /// The LoRA adapter's term of a projection, where it has one.
    fn lora(&self, r: &mut Recorder, projection: Projection, layer: usize) -> Option<Lora> {
        let adapter = self.adapter.as_ref()?;
        let term = adapter.layout.term(layer, projection)?;
        let [a, b] = term.names().map(|name| adapter.weights.bind(r, &name).whole());
        Some(Lora { a, b, scale: adapter.layout.scale(term) })
    }
}
