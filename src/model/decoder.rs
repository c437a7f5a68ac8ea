//! The forward pass of any [`Architecture`], recorded over a stream of token rows. Its backward pass follows from
//! the ops' rules.

use std::sync::Arc;

use super::architecture::{self, EMBEDDING, FINAL_NORM, FeedForward, HEAD, LayerNorm, Projection};
use super::kv_cache::KvCache;
use super::{Model, ModelState};
use crate::error::Result;
use crate::gpu::{Dim, Format, Recorder, Tensor};
use crate::ops::{self, AttentionShape, Inverse, KeySource, LowRank, Matrix, Norm};

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
        for layer in 0..self.state.architecture.layers {
            let (state, stream, keys) = (self.state.clone(), *stream, keys.clone());
            let record = move |r: &mut Recorder| state.layer(r, layer, x, &stream, &keys);
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
        ops::rmsnorm(r, hidden, norm.gain, norm.eps)
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
        keys: &Keys,
    ) -> Result<Tensor> {
        let a = &self.architecture;
        let FeedForward::SwiGlu = a.feed_forward;
        let rope = r.bind(&self.rope, self.rope_rows, a.head_dim, Format::F32);
        let scale = 1.0 / (a.head_dim as f32).sqrt();
        let shape = AttentionShape { heads: a.heads, kv_heads: a.kv_heads, head_dim: a.head_dim, scale };
        let keys = match keys {
            Keys::Stream => KeySource::Rows { ends: s.ends },
            Keys::After { cache, keys } => KeySource::After { kv: cache.bind(r, layer), keys: *keys },
            Keys::Cache { cache, apart } => KeySource::Cache { kv: cache.bind(r, layer), apart: *apart },
        };
        let qkv = self.projection(r, &Projection::QKV, LayerNorm::Attention, layer);
        let mixed = ops::self_attention(r, x, &qkv, shape, s.spans, rope, keys)?;
        let output = self.base.bind(r, &Projection::Output.weight(layer));
        let low_rank = self.low_rank(r, Projection::Output, layer);
        let x = ops::linear(r, mixed, &output, low_rank, Some(x))?;

        let gated = self.projection(r, &Projection::GATED, LayerNorm::FeedForward, layer);
        let down = self.base.bind(r, &Projection::Down.weight(layer));
        let low_rank = self.low_rank(r, Projection::Down, layer);
        ops::feed_forward(r, x, &gated, &down, low_rank)
    }

    fn norm(&self, r: &mut Recorder, weight: &str) -> Norm {
        let architecture::Norm::Rms { epsilon } = self.architecture.norm;
        Norm { gain: self.base.bind(r, weight).whole(), eps: epsilon }
    }

    /// The projections that read the same normalised rows.
    fn projection(
        &self,
        r: &mut Recorder,
        projections: &[Projection],
        norm: LayerNorm,
        layer: usize,
    ) -> ops::Projection {
        let names: Vec<String> = projections.iter().map(|p| p.weight(layer)).collect();
        let weights = self.base.bind_stacked(r, &names);
        let mut low_rank = Vec::new();
        let mut first = 0;
        for projection in projections {
            low_rank.extend(self.low_rank(r, *projection, layer).map(|l| (first, l)));
            first += self.architecture.projection_shape(*projection).0;
        }
        ops::Projection { norm: self.norm(r, &norm.tensor(layer)), weights, low_rank }
    }

    /// The adapter's term of a projection, where it has one.
    fn low_rank(&self, r: &mut Recorder, projection: Projection, layer: usize) -> Option<LowRank> {
        let adapter = self.adapter.as_ref()?;
        let term = adapter.layout.term(layer, projection)?;
        let [a, b] = term.names().map(|name| adapter.weights.bind(r, &name).whole());
        Some(LowRank { a, b, scale: adapter.layout.scale(term) })
    }
}
