//! Device buffers for a stream of packed trees. They are filled again for every replay of a plan.

use std::sync::{Mutex, PoisonError};

use super::{Model, StreamTensors};
use crate::data::packing::{ChoiceTree, Inverse, Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Category, Dim, Format, Gpu, Live, Recorder, Tensor};
use crate::ops;

/// The size of the largest stream that a plan can process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Capacity {
    /// The number of rows, N.
    pub tokens: usize,
    /// The number of target rows, T.
    pub targets: usize,
    /// The number of sequences, S.
    pub sequences: usize,
}

impl Capacity {
    /// The capacity that these trees take.
    pub fn of(trees: &[Tree]) -> Capacity {
        trees.iter().fold(Capacity::default(), |c, t| c.with(Capacity::of_tree(t)))
    }

    /// The capacity that one tree takes.
    pub(crate) fn of_tree(tree: &Tree) -> Capacity {
        Capacity { tokens: tree.rows(), targets: tree.targets(), sequences: tree.responses.len() }
    }

    /// The sum of both.
    fn with(self, other: Capacity) -> Capacity {
        Capacity {
            tokens: self.tokens + other.tokens,
            targets: self.targets + other.targets,
            sequences: self.sequences + other.sequences,
        }
    }

    /// The capacity that one tree of choices takes.
    pub(crate) fn of_choices(tree: &ChoiceTree) -> Capacity {
        let sequences = tree.branches.len();
        Capacity { tokens: tree.rows(), targets: sequences * tree.choices.len(), sequences }
    }

    /// The capacity that a packed stream takes.
    pub(crate) fn of_packed(packed: &Packed) -> Capacity {
        let (tokens, targets) = (packed.ids.len(), packed.target_ids.len());
        Capacity { tokens, targets, sequences: packed.sequences() }
    }

    /// Whether a stream of the size `other` fits.
    pub fn holds(self, other: Capacity) -> bool {
        self.tokens >= other.tokens && self.targets >= other.targets && self.sequences >= other.sequences
    }

    /// Divides a list, in order, into streams of at most `most` items that each fit. `size` returns the capacity that
    /// an item takes.
    ///
    /// # Errors
    /// [`Error::Config`] for an item that does not fit alone.
    pub(crate) fn batches<T>(
        self,
        items: &[T],
        most: usize,
        size: impl Fn(&T) -> Capacity,
    ) -> Result<Vec<&[T]>> {
        let mut out = Vec::new();
        let (mut first, mut filled) = (0, Capacity::default());
        for (i, item) in items.iter().enumerate() {
            let alone = size(item);
            let more = filled.with(alone);
            if i > first && (!self.holds(more) || i - first == most) {
                out.push(&items[first..i]);
                (first, filled) = (i, alone);
            } else {
                filled = more;
            }
            self.check_holds("a tree", filled)?;
        }
        if first < items.len() {
            out.push(&items[first..]);
        }
        Ok(out)
    }

    /// Returns an error for a stream that does not fit.
    pub(crate) fn check_holds(self, what: &str, other: Capacity) -> Result<()> {
        if self.holds(other) {
            return Ok(());
        }
        let of =
            |c: Capacity| format!("{} tokens, {} targets and {} sequences", c.tokens, c.targets, c.sequences);
        let why =
            format!("{what} takes {}, but the capacity is {}: use a larger capacity", of(other), of(self));
        Err(Error::config("capacity", why))
    }

    /// Returns an error for a capacity for which no plan can be recorded.
    fn check(self) -> Result<()> {
        // The GPU counts rows in 32 bits, and kernels use one of the bits to mark a live extent.
        let sizes = [("tokens", self.tokens), ("targets", self.targets), ("sequences", self.sequences)];
        match sizes.into_iter().find(|(_, n)| !(1..=MOST_ROWS).contains(n)) {
            Some((what, n)) => {
                Err(Error::config("capacity", format!("of {n} {what}: expected 1 to {MOST_ROWS}")))
            }
            None => Ok(()),
        }
    }
}

const MOST_ROWS: usize = i32::MAX as usize / 4;

/// Returns an error if there are no token ids, or if one is outside a vocabulary of `vocab` tokens.
pub(crate) fn check_ids(vocab: usize, what: impl FnOnce() -> String, ids: &[u32]) -> Result<()> {
    if ids.is_empty() {
        return Err(Error::config(what(), "has no tokens, but at least one is required"));
    }
    match ids.iter().position(|id| *id as usize >= vocab) {
        None => Ok(()),
        Some(at) => {
            let why =
                format!("has the token id {} at {at}, but the model's vocabulary ends at {vocab}", ids[at]);
            Err(Error::config(what(), why))
        }
    }
}

/// Indices of a stream's live extents.
pub(crate) mod extent {
    /// N.
    pub const TOKENS: u8 = 0;
    /// T.
    pub const TARGETS: u8 = 1;
    /// S.
    pub const SEQUENCES: u8 = 2;
    /// Distinct tokens.
    pub const UNIQUE: u8 = 3;
    /// Pairs.
    pub const PAIRS: u8 = 4;
    /// Tokens of a preamble.
    pub const PREAMBLE: u8 = 5;
    /// Distinct positions.
    pub const POSITIONS: u8 = 6;
    /// Parts of sequences.
    pub const PARTS: u8 = 7;
}

/// The mean number of keys that a row attends to.
pub(crate) fn mean_keys(spans: &[[u32; 4]]) -> u32 {
    let keys: u64 = spans.iter().map(|s| u64::from(s[1] - s[0] + s[3] - s[2])).sum();
    keys.div_ceil(spans.len().max(1) as u64) as u32
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

/// A stream's buffers. All trees pass [`Stream::check`] first, which rejects what the model cannot read; kernels rely
/// on it.
pub(crate) struct Stream {
    gpu: Gpu,
    capacity: Capacity,
    /// V.
    vocab: usize,
    /// The largest number of rows of a sequence.
    context: usize,
    ids: Buffer,
    spans: Buffer,
    ends: Buffer,
    target_rows: Buffer,
    target_ids: Buffer,
    offsets: Buffer,
    /// The index lists for gradients; `None` for a stream that is only scored.
    inverses: Option<(InverseBuffers, InverseBuffers)>,
    /// The index list for the gradient of learned positions.
    positions: Option<InverseBuffers>,
    /// The present content of the buffers.
    uploaded: Mutex<Option<(Packed, Live)>>,
}

/// A stream's targets in a recording.
#[derive(Clone, Copy)]
pub(crate) struct TargetTensors {
    /// The row that predicts each target, (T, 1).
    pub rows: Tensor,
    /// The token that is predicted, (T, 1).
    pub ids: Tensor,
    /// The first target of each sequence, (S + 1, 1).
    pub offsets: Tensor,
    /// The inverse of `rows`, over every row.
    pub inverse: Option<ops::Inverse>,
    /// S.
    pub sequences: Dim,
}

impl Stream {
    /// Allocates buffers for `model`'s streams up to `capacity`; with `training` also those for gradients.
    ///
    /// # Errors
    /// [`Error::Config`] for a capacity that is empty or too large, and for a `gpu` that the model is not on.
    pub fn new(gpu: &Gpu, model: &Model, capacity: Capacity, training: bool) -> Result<Stream> {
        model.check_gpu(gpu)?;
        capacity.check()?;
        let words = |label, n: usize| gpu.buffer(label, Category::Workspace, n as u64 * 4);
        let Capacity { tokens, targets, sequences } = capacity;
        let inverses = match training {
            true => {
                Some((InverseBuffers::new(gpu, tokens, tokens)?, InverseBuffers::new(gpu, tokens, targets)?))
            }
            false => None,
        };
        let learned = training && model.architecture().learned_positions;
        let positions = learned.then(|| InverseBuffers::new(gpu, tokens, tokens)).transpose()?;
        Ok(Stream {
            positions,
            gpu: gpu.clone(),
            capacity,
            vocab: model.architecture().vocab,
            context: model.architecture().context,
            ids: words("token ids", tokens)?,
            spans: words("key spans", tokens * 4)?,
            ends: words("query ends", tokens)?,
            target_rows: words("target rows", targets)?,
            target_ids: words("target ids", targets)?,
            offsets: words("sequence offsets", sequences + 1)?,
            inverses,
            uploaded: Mutex::default(),
        })
    }

    /// The largest stream that fits.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Returns an error for trees that the model cannot read, see [`Tree`]. A response's last token is only predicted,
    /// so it may be one position beyond the context.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty text or a token id outside the vocabulary, [`Error::TooLong`] for a sequence
    /// longer than the context; each names the tree.
    pub fn check<'t>(&self, trees: impl IntoIterator<Item = &'t Tree>) -> Result<()> {
        for (i, tree) in trees.into_iter().enumerate() {
            self.check_ids(|| format!("prompt of tree {i}"), &tree.prompt)?;
            for (j, response) in tree.responses.iter().enumerate() {
                self.check_ids(|| format!("response {j} of tree {i}"), response)?;
            }
            self.check_length(i, tree.length().saturating_sub(usize::from(!tree.responses.is_empty())))?;
        }
        Ok(())
    }

    /// [`Stream::check`] for trees of choices.
    pub fn check_choices(&self, trees: &[ChoiceTree]) -> Result<()> {
        for (i, tree) in trees.iter().enumerate() {
            self.check_ids(|| format!("prompt of tree {i}"), &tree.prompt)?;
            self.check_ids(|| format!("choices of tree {i}"), &tree.choices)?;
            for (j, branch) in tree.branches.iter().enumerate() {
                self.check_ids(|| format!("branch {j} of tree {i}"), branch)?;
            }
            let longest = tree.branches.iter().map(Vec::len).max().unwrap_or(0);
            self.check_length(i, tree.prompt.len() + longest)?;
        }
        Ok(())
    }

    fn check_ids(&self, what: impl FnOnce() -> String, ids: &[u32]) -> Result<()> {
        check_ids(self.vocab, what, ids)
    }

    fn check_length(&self, tree: usize, rows: usize) -> Result<()> {
        match rows > self.context {
            false => Ok(()),
            true => Err(Error::TooLong { what: format!("tree {tree}"), tokens: rows, limit: self.context }),
        }
    }

    /// Binds the stream's buffers in a recording.
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
            positions: self
                .positions
                .as_ref()
                .map(|positions| positions.bind(r, dim(extent::POSITIONS, self.capacity.tokens), tokens)),
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

    /// Fills the buffers with checked trees, unless they already contain them; returns the live extents.
    pub fn upload(&self, packed: &Packed) -> Result<Live> {
        let mut uploaded = self.uploaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, live)) = uploaded.as_ref().filter(|(there, _)| there == packed) {
            return Ok(*live);
        }
        *uploaded = None;
        let live = self.fill(packed)?;
        *uploaded = Some((packed.clone(), live));
        Ok(live)
    }

    fn fill(&self, packed: &Packed) -> Result<Live> {
        let gpu = &self.gpu;
        gpu.upload(&self.ids.region(), &packed.ids)?;
        gpu.upload(&self.spans.region(), &packed.spans)?;
        gpu.upload(&self.ends.region(), &packed.ends)?;
        gpu.upload(&self.target_rows.region(), &packed.target_rows)?;
        gpu.upload(&self.target_ids.region(), &packed.target_ids)?;
        gpu.upload(&self.offsets.region(), &packed.offsets)?;
        let mut live = Live { keys: mean_keys(&packed.spans), ..Live::default() };
        if let Some((embedding, picked)) = &self.inverses {
            let tokens = Inverse::of(&packed.ids);
            embedding.upload(gpu, &tokens)?;
            picked.upload(gpu, &Inverse::of_all(&packed.target_rows, packed.ids.len()))?;
            live.extents[extent::UNIQUE as usize] = tokens.rows.len() as u32;
        }
        if let Some(positions) = &self.positions {
            let inverse = Inverse::of(&packed.positions());
            positions.upload(gpu, &inverse)?;
            live.extents[extent::POSITIONS as usize] = inverse.rows.len() as u32;
        }
        live.extents[extent::TOKENS as usize] = packed.ids.len() as u32;
        live.extents[extent::TARGETS as usize] = packed.target_ids.len() as u32;
        live.extents[extent::SEQUENCES as usize] = packed.sequences() as u32;
        Ok(live)
    }
}
