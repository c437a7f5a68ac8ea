//! Buffers for a stream of packed trees, filled anew for every replay.

use super::StreamTensors;
use crate::data::packing::{Inverse, Packed, Tree};
use crate::error::Result;
use crate::gpu::{Buffer, Category, Dim, Format, Gpu, Live, Recorder, Tensor};
use crate::ops;

/// The largest stream that a plan takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Capacity {
    /// Rows, N.
    pub tokens: usize,
    /// Target rows, T.
    pub targets: usize,
    /// Sequences, S.
    pub sequences: usize,
}

impl Capacity {
    /// What these trees take.
    pub fn of(trees: &[Tree]) -> Capacity {
        trees.iter().fold(Capacity::default(), |c, t| c.plus(t))
    }

    fn plus(self, tree: &Tree) -> Capacity {
        Capacity {
            tokens: self.tokens + tree.rows(),
            targets: self.targets + tree.targets(),
            sequences: self.sequences + tree.responses.len(),
        }
    }

    /// Whether a stream of `other` fits.
    pub fn holds(self, other: Capacity) -> bool {
        self.tokens >= other.tokens && self.targets >= other.targets && self.sequences >= other.sequences
    }

    /// Cuts a list, in order, into streams of at most `most` trees that each fit; a tree that does not fit alone is
    /// an error of the caller.
    pub fn batches<T>(self, items: &[T], most: usize, tree: impl Fn(&T) -> &Tree) -> Vec<&[T]> {
        let mut out = Vec::new();
        let (mut first, mut filled) = (0, Capacity::default());
        for (i, item) in items.iter().enumerate() {
            let tree = tree(item);
            let more = filled.plus(tree);
            if i > first && (!self.holds(more) || i - first == most) {
                out.push(&items[first..i]);
                (first, filled) = (i, Capacity::default().plus(tree));
            } else {
                filled = more;
            }
            assert!(self.holds(filled), "a tree of {} rows does not fit {self:?}", tree.rows());
        }
        if first < items.len() {
            out.push(&items[first..]);
        }
        out
    }
}

/// Live extents of a stream.
pub mod extent {
    /// N.
    pub const TOKENS: u8 = 0;
    /// T.
    pub const TARGETS: u8 = 1;
    /// S.
    pub const SEQUENCES: u8 = 2;
    /// Different tokens.
    pub const UNIQUE: u8 = 3;
    /// Pairs.
    pub const PAIRS: u8 = 4;
    /// Tokens of a preamble.
    pub const PREAMBLE: u8 = 5;
}

struct InverseBuffers {
    rows: Buffer,
    offsets: Buffer,
    order: Buffer,
}

impl InverseBuffers {
    fn new(gpu: &Gpu, rows: usize, order: usize) -> Result<InverseBuffers> {
        let words = |label, n: usize| gpu.buffer(label, Category::Workspace, n as u64 * 4);
        Ok(InverseBuffers {
            rows: words("inverse rows", rows)?,
            offsets: words("inverse offsets", rows + 1)?,
            order: words("inverse order", order)?,
        })
    }

    fn upload(&self, gpu: &Gpu, inverse: &Inverse) -> Result<()> {
        gpu.upload(&self.rows.region(), &inverse.rows)?;
        gpu.upload(&self.offsets.region(), &inverse.offsets)?;
        gpu.upload(&self.order.region(), &inverse.order)
    }

    fn bind(&self, r: &mut Recorder, rows: Dim, order: Dim) -> ops::Inverse {
        ops::Inverse {
            rows: r.bind(&self.rows.region(), rows, 1, Format::U32),
            offsets: r.bind(&self.offsets.region(), rows.max() as usize + 1, 1, Format::U32),
            order: r.bind(&self.order.region(), order, 1, Format::U32),
        }
    }
}

/// A stream's buffers.
pub struct Stream {
    gpu: Gpu,
    capacity: Capacity,
    ids: Buffer,
    spans: Buffer,
    ends: Buffer,
    target_rows: Buffer,
    target_ids: Buffer,
    offsets: Buffer,
    /// The gradients' index lists; a stream that is only scored does without.
    inverses: Option<(InverseBuffers, InverseBuffers)>,
}

/// A stream's targets in a recording.
#[derive(Clone, Copy)]
pub struct TargetTensors {
    /// The row that predicts each, (T, 1).
    pub rows: Tensor,
    /// The token to be predicted, (T, 1).
    pub ids: Tensor,
    /// First target of each sequence, (S + 1, 1).
    pub offsets: Tensor,
    /// Inverse of `rows`, over every row.
    pub inverse: Option<ops::Inverse>,
    /// S.
    pub sequences: Dim,
}

impl Stream {
    /// Buffers for streams up to `capacity`, with what gradients need where `training`.
    pub fn new(gpu: &Gpu, capacity: Capacity, training: bool) -> Result<Stream> {
        let words = |label, n: usize| gpu.buffer(label, Category::Workspace, n as u64 * 4);
        let Capacity { tokens, targets, sequences } = capacity;
        let inverses = match training {
            true => {
                Some((InverseBuffers::new(gpu, tokens, tokens)?, InverseBuffers::new(gpu, tokens, targets)?))
            }
            false => None,
        };
        Ok(Stream {
            gpu: gpu.clone(),
            capacity,
            ids: words("token ids", tokens)?,
            spans: words("key spans", tokens * 4)?,
            ends: words("query ends", tokens)?,
            target_rows: words("target rows", targets)?,
            target_ids: words("target ids", targets)?,
            offsets: words("sequence offsets", sequences + 1)?,
            inverses,
        })
    }

    /// What fits.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The stream's tensors in a recording.
    pub fn bind(&self, r: &mut Recorder) -> (StreamTensors, TargetTensors) {
        let dim = |index, max: usize| Dim::Live { index, max: max as u32 };
        let tokens = dim(extent::TOKENS, self.capacity.tokens);
        let targets = dim(extent::TARGETS, self.capacity.targets);
        let bind = |r: &mut Recorder, b: &Buffer, rows, cols| r.bind(&b.region(), rows, cols, Format::U32);
        let inverses = self.inverses.as_ref().map(|(embedding, picked)| {
            let unique = dim(extent::UNIQUE, self.capacity.tokens);
            (embedding.bind(r, unique, tokens), picked.bind(r, tokens, targets))
        });
        let stream = StreamTensors {
            ids: bind(r, &self.ids, tokens, 1),
            spans: bind(r, &self.spans, tokens, 4),
            ends: Some(bind(r, &self.ends, tokens, 1)),
            inverse: inverses.map(|i| i.0),
        };
        let picked = TargetTensors {
            rows: bind(r, &self.target_rows, targets, 1),
            ids: bind(r, &self.target_ids, targets, 1),
            offsets: bind(r, &self.offsets, (self.capacity.sequences + 1).into(), 1),
            inverse: inverses.map(|i| i.1),
            sequences: dim(extent::SEQUENCES, self.capacity.sequences),
        };
        (stream, picked)
    }

    /// Fills the buffers; returns the live extents.
    pub fn upload(&self, packed: &Packed) -> Result<Live> {
        let gpu = &self.gpu;
        gpu.upload(&self.ids.region(), &packed.ids)?;
        gpu.upload(&self.spans.region(), &packed.spans)?;
        gpu.upload(&self.ends.region(), &packed.ends)?;
        gpu.upload(&self.target_rows.region(), &packed.target_rows)?;
        gpu.upload(&self.target_ids.region(), &packed.target_ids)?;
        gpu.upload(&self.offsets.region(), &packed.offsets)?;
        let mut live = Live::default();
        if let Some((embedding, picked)) = &self.inverses {
            let tokens = Inverse::of(&packed.ids);
            embedding.upload(gpu, &tokens)?;
            picked.upload(gpu, &Inverse::of_all(&packed.target_rows, packed.ids.len()))?;
            live.extents[extent::UNIQUE as usize] = tokens.rows.len() as u32;
        }
        live.extents[extent::TOKENS as usize] = packed.ids.len() as u32;
        live.extents[extent::TARGETS as usize] = packed.target_ids.len() as u32;
        live.extents[extent::SEQUENCES as usize] = packed.sequences() as u32;
        Ok(live)
    }
}
