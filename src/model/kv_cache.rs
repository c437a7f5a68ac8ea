//! Keys and values of the sequences being generated.

use super::architecture::Architecture;
use crate::error::Result;
use crate::gpu::{Category, Format, Gpu, Recorder, Region, Tensor};

/// For each layer keys beside values, (M, 2 K D); a row is a token of some sequence.
pub(crate) struct KvCache {
    layers: Vec<Region>,
    rows: usize,
    cols: usize,
}

impl KvCache {
    /// A cache of `rows` tokens.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] or [`crate::Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, architecture: &Architecture, rows: usize) -> Result<KvCache> {
        let cols = 2 * architecture.kv_heads * architecture.head_dim;
        let bytes = (rows * cols * 4) as u64;
        let layer = |l: usize| {
            let label = format!("keys and values of layer {l}");
            Ok(gpu.buffer(label, Category::KvCache, bytes)?.region())
        };
        Ok(KvCache { layers: (0..architecture.layers).map(layer).collect::<Result<_>>()?, rows, cols })
    }

    /// A layer's keys and values in a recording.
    pub fn bind(&self, r: &mut Recorder, layer: usize) -> Tensor {
        r.bind(&self.layers[layer], self.rows, self.cols, Format::F32)
    }
}
