//! The forward pass of any [`Architecture`], recorded over a stream of token rows. Its backward pass follows from
//! the ops' rules.

use std::sync::Arc;

use super::architecture::{EMBEDDING, FINAL_NORM, FeedForward, HEAD, LayerNorm, Norm, Projection};
use super::kv_cache::KvCache;
use super::{Model, ModelState};
use crate::error::Result;
use crate::gpu::{Format, Recorder, Tensor};
use crate::ops::{self, AttentionShape, Inverse, LowRank, Matrix};

/// The rows of a stream in a recording, see [`crate::data::packing::Packed`].
#[derive(Clone, Copy)]
pub struct StreamTensors {
    /// Token ids, (N, 1).
    pub ids: Tensor,
    /// Positions, (N, 1).
    pub positions: Tensor,
    /// Key ranges, (N, 4).
    pub spans: Tensor,
    /// Where keys end being seen, (N, 1); needed for gradients.
    pub ends: Option<Tensor>,
    /// The tokens' inverse; needed for the embedding's gradient.
    pub inverse: Option<Inverse>,
}

/// Where attention finds keys and values.
#[derive(Clone)]
pub enum Keys {
    /// In the stream itself.
    Stream,
    /// In a cache, to which the stream's own are written first, at these rows (N, 1).
    Cache(Arc<KvCache>, Tensor),
}

impl Model {
    /// The last layer's output, (N, C), before the final norm. With `checkpointing`, a layer's activations are
    /// computed again in the backward pass rather than kept.
    pub fn hidden(
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
    pub fn final_norm(&self, r: &mut Recorder, hidden: Tensor) -> Result<Tensor> {
        self.state.norm(r, hidden, FINAL_NORM)
    }

    /// The output head, (V, C).
    pub fn head(&self, r: &mut Recorder) -> Matrix {
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
        let rope = r.bind(&self.rope, self.rope_rows, a.head_dim, Format::F32);

        let normed = self.norm(r, x, &LayerNorm::Attention.tensor(layer))?;
        let q = self.project(r, Projection::Query, layer, normed, None)?;
        let k = self.project(r, Projection::Key, layer, normed, None)?;
        let v = self.project(r, Projection::Value, layer, normed, None)?;
        let q = ops::rope(r, q, s.positions, rope, a.heads)?;
        let k = ops::rope(r, k, s.positions, rope, a.kv_heads)?;
        let scale = 1.0 / (a.head_dim as f32).sqrt();
        let shape = AttentionShape { heads: a.heads, kv_heads: a.kv_heads, head_dim: a.head_dim, scale };
        let mixed = match keys {
            Keys::Stream => ops::attention(r, q, k, v, shape, s.spans, s.ends)?,
            Keys::Cache(cache, rows) => {
                let (cached_k, cached_v) = cache.bind(r, layer);
                ops::scatter_rows(r, k, *rows, cached_k);
                ops::scatter_rows(r, v, *rows, cached_v);
                ops::attention(r, q, cached_k, cached_v, shape, s.spans, None)?
            }
        };
        let x = self.project(r, Projection::Output, layer, mixed, Some(x))?;

        let normed = self.norm(r, x, &LayerNorm::FeedForward.tensor(layer))?;
        let FeedForward::SwiGlu = a.feed_forward;
        let gate = self.project(r, Projection::Gate, layer, normed, None)?;
        let up = self.project(r, Projection::Up, layer, normed, None)?;
        let inner = ops::swiglu(r, gate, up)?;
        self.project(r, Projection::Down, layer, inner, Some(x))
    }

    fn norm(&self, r: &mut Recorder, x: Tensor, weight: &str) -> Result<Tensor> {
        let w = self.base.bind(r, weight).parts[0];
        let Norm::Rms { epsilon } = self.architecture.norm;
        ops::rmsnorm(r, x, w, epsilon)
    }

    fn project(
        &self,
        r: &mut Recorder,
        projection: Projection,
        layer: usize,
        x: Tensor,
        residual: Option<Tensor>,
    ) -> Result<Tensor> {
        let w = self.base.bind(r, &format!("{}.weight", projection.module(layer)));
        let low_rank =
            self.adapter.as_ref().filter(|a| a.config.targets.contains(&projection)).map(|adapter| {
                let [a, b] = super::lora::LoraConfig::names(projection, layer);
                let bind = |r: &mut Recorder, name: &str| adapter.weights.bind(r, name).parts[0];
                LowRank { a: bind(r, &a), b: bind(r, &b), scale: adapter.config.scale() }
            });
        ops::linear(r, x, &w, low_rank, residual)
    }
}
