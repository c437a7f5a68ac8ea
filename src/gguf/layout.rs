//! The differences between the elements of a tensor in GGUF and those that a model uses.

use crate::model::Architecture;
use crate::model::names::Projection;
use crate::ops::NormKind;

use super::names::{Module, pairs_are_neighbours};

/// The difference of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// No difference.
    Same,
    /// The rows of this number of heads are ordered so that rotated pairs are adjacent, instead of in the two halves of
    /// a head.
    Neighbours(usize),
    /// GGUF stores 1 + w, where the model's norm has the weight w.
    OneMore,
}

impl Layout {
    /// The layout of a module's tensors in a file with the architecture `gguf`.
    pub fn of(module: &Module, gguf: &str, architecture: &Architecture) -> Layout {
        let neighbours = pairs_are_neighbours(gguf);
        match module.projection {
            Some(Projection::Query) if neighbours => Layout::Neighbours(architecture.heads),
            Some(Projection::Key) if neighbours => Layout::Neighbours(architecture.kv_heads),
            _ if module.is_norm && architecture.norm.kind == NormKind::RmsUnitOffset => Layout::OneMore,
            _ => Layout::Same,
        }
    }
}

/// Reorders rows of `cols` elements, in whole heads of D rows, from adjacent pairs to halves: row (h, s, j) was row (h,
/// j, s).
pub(super) fn to_halves(values: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    reordered(values, head_dim, cols, |row| row % (head_dim / 2) * 2 + row / (head_dim / 2))
}

/// The inverse of [`to_halves`].
pub(super) fn to_neighbours(values: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    reordered(values, head_dim, cols, |row| row % 2 * (head_dim / 2) + row / 2)
}

/// Reorders the rows of each head: `from` returns the earlier index in the head.
fn reordered(values: &[f32], head_dim: usize, cols: usize, from: impl Fn(usize) -> usize) -> Vec<f32> {
    let rows = values.len() / cols;
    let old = |row: usize| row / head_dim * head_dim + from(row % head_dim);
    (0..rows).flat_map(|row| &values[old(row) * cols..][..cols]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reordering_to_halves_and_back_is_the_identity() {
        let rows: Vec<f32> = (0..16).map(|i| i as f32).collect();
        // Two heads of four rows of two elements.
        let halves = to_halves(&rows, 4, 2);
        assert_eq!(halves, [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15].map(|i| i as f32));
        assert_eq!(to_neighbours(&halves, 4, 2), rows);
    }
}
