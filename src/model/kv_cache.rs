//! Keys and values of the sequences being generated.

use super::architecture::Architecture;
use crate::error::Result;
use crate::gpu::{Category, Format, Gpu, Recorder, Region, Tensor};

/// For each layer keys and values, (M, K·D) each; a row is a token of some sequence.
pub struct KvCache {
    layers: Vec<(Region, Region)>,
    rows: usize,
    cols: usize,
}

impl KvCache {
    /// A cache of `rows` tokens.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] or [`crate::Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, architecture: &Architecture, rows: usize) -> Result<KvCache> {
        let cols = architecture.kv_heads * architecture.head_dim;
        let bytes = (rows * cols * 4) as u64;
        let layer = |l: usize| {
            let keys = gpu.buffer(format!("keys of layer {l}"), Category::KvCache, bytes)?.region();
            let values = gpu.buffer(format!("values of layer {l}"), Category::KvCache, bytes)?.region();
            Ok((keys, values))
        };
        Ok(KvCache { layers: (0..architecture.layers).map(layer).collect::<Result<_>>()?, rows, cols })
    }

    /// Tokens that it holds.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A layer's keys and values in a recording.
    pub fn bind(&self, r: &mut Recorder, layer: usize) -> (Tensor, Tensor) {
        let (keys, values) = &self.layers[layer];
        let bind = |r: &mut Recorder, region| r.bind(region, self.rows, self.cols, Format::F32);
        (bind(r, keys), bind(r, values))
    }
}
