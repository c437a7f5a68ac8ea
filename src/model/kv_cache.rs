//! The KV cache of sequences that are being generated.

use std::sync::Arc;

use super::architecture::Architecture;
use crate::error::Result;
use crate::gpu::{Category, Format, Gpu, Recorder, Region, Tensor};

/// Keys next to values for each layer, (M, 2 K D); a row is a token of some sequence.
pub(crate) struct KvCache {
    layers: Vec<Region>,
    rows: usize,
    cols: usize,
    longest: usize,
}

/// Keeps the content of a cache until it is dropped.
pub(crate) struct KvPin {
    cache: Arc<KvCache>,
}

impl Drop for KvPin {
    fn drop(&mut self) {
        self.cache.layers.iter().for_each(|layer| layer.buffer.unpin());
    }
}

impl KvCache {
    /// Allocates a cache of `rows` tokens for sequences of up to `longest` tokens. Its memory may be released while it
    /// is not pinned, see [`Gpu::release_memory`].
    ///
    /// # Errors
    /// [`crate::Error::Limit`] or [`crate::Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, architecture: &Architecture, rows: usize, longest: usize) -> Result<KvCache> {
        let cols = 2 * architecture.kv_heads * architecture.head_dim;
        let bytes = (rows * cols * 4) as u64;
        let layer = |l: usize| {
            let label = format!("keys and values of layer {l}");
            gpu.releasable_buffer(label, Category::KvCache, bytes).map(|buffer| buffer.region())
        };
        let layers = (0..architecture.layers).map(layer).collect::<Result<_>>()?;
        Ok(KvCache { layers, rows, cols, longest })
    }

    /// Pins the content of the cache from now on, and returns whether its earlier content is still there.
    pub fn pin(self: &Arc<KvCache>) -> (KvPin, bool) {
        // Every layer must be pinned, so the iteration does not stop early.
        let kept = self.layers.iter().filter(|layer| layer.buffer.pin()).count();
        (KvPin { cache: self.clone() }, kept == self.layers.len())
    }

    /// The largest number of tokens in a sequence.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Binds the keys and values of a layer in a recording.
    pub fn bind(&self, r: &mut Recorder, layer: usize) -> Tensor {
        r.bind(&self.layers[layer], self.rows, self.cols, Format::F32)
    }
}
