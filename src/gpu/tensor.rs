//! Virtual tensors: shape, format, and access.

use serde::{Deserialize, Serialize};

/// An extent: fixed when recorded, or live, i.e. set for every replay up to a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// The same in every replay.
    Fixed(u32),
    /// Number `index` of [`super::Live::extents`], never above `max`.
    Live {
        /// Which live extent.
        index: u8,
        /// The largest value, for which memory is planned.
        max: u32,
    },
}

impl Dim {
    /// The largest value.
    pub fn max(self) -> u32 {
        match self {
            Dim::Fixed(n) => n,
            Dim::Live { max, .. } => max,
        }
    }

    /// Returns the value in a replay with these live extents.
    pub fn now(self, extents: &[u32; 8]) -> u32 {
        match self {
            Dim::Fixed(n) => n,
            Dim::Live { index, .. } => extents[index as usize],
        }
    }

    pub(super) fn code(self) -> u32 {
        match self {
            Dim::Fixed(n) => n,
            Dim::Live { index, .. } => 0x8000_0000 | index as u32,
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Fixed(n as u32)
    }
}

/// Elements of two blocks, which are stored together: the length of a row is a multiple of it.
pub(super) const GROUP: usize = 64;

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// 32-bit unsigned integers.
    U32,
    /// Half precision, two elements a word, the first in its low half. Read only.
    F16,
    /// Brain floats: the upper halves of 32-bit floats; otherwise as [`Format::F16`].
    Bf16,
    /// Blocks of 8-bit integers with one scale each, see [`super::blocks`]. Read only.
    Q8,
    /// The same with 4-bit integers.
    Q4,
}

impl Format {
    /// Returns the bytes of this many elements, in whole words.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            Format::F32 | Format::U32 => elements * 4,
            Format::F16 | Format::Bf16 => elements.next_multiple_of(2) * 2,
            Format::Q8 | Format::Q4 => elements.div_ceil(GROUP as u64) * self.group_words() as u64 * 4,
        }
    }

    /// Returns the number that a row's length must be a multiple of.
    pub fn row_unit(self) -> usize {
        match self {
            Format::F32 | Format::U32 => 1,
            Format::F16 | Format::Bf16 => 4,
            Format::Q8 | Format::Q4 => GROUP,
        }
    }

    /// Whether kernels can write it.
    pub(super) fn is_written(self) -> bool {
        matches!(self, Format::F32 | Format::U32)
    }

    /// Returns the words of a group of blocks: its integers, and one word with two scales.
    pub(super) fn group_words(self) -> usize {
        match self {
            Format::Q8 => GROUP / 4 + 1,
            Format::Q4 => GROUP / 8 + 1,
            _ => panic!("{self:?} has no blocks"),
        }
    }
}

/// A virtual tensor of a recording: a matrix of `rows` by `cols`, row-major, without gaps between rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub(super) id: u32,
    /// Rows; for activations, one per token.
    pub rows: Dim,
    /// Elements of a row.
    pub cols: usize,
    /// How elements are stored.
    pub format: Format,
}

impl Tensor {
    /// Returns the bytes at the largest number of rows.
    pub fn bytes(&self) -> u64 {
        self.format.bytes(self.rows.max() as u64 * self.cols as u64)
    }
}

/// How a launch accesses a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read.
    Read,
    /// Write or add; the kernel declares it `read_write`.
    Write,
}

/// Whether a gradient is the first contribution to its tensor or an additional one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulate {
    /// Write it: `=`.
    Set,
    /// Add it to the existing value: `+=`.
    Add,
}

/// Where and how a rule writes a gradient.
#[derive(Clone, Copy, Debug)]
pub struct GradientTarget {
    /// The gradient's tensor, with the shape of the tensor itself.
    pub tensor: Tensor,
    /// Set or add.
    pub accumulate: Accumulate,
}
