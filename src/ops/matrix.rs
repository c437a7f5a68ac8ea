//! Weight matrices, in pieces.

use crate::gpu::Tensor;

/// A weight matrix (rows, cols) in pieces, which lie in one tensor or in several. A matrix above the GPU's binding
/// limit is split by rows; and several matrices with the same input may be stacked into one.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The pieces, in order of their rows.
    pub pieces: Vec<MatrixRows>,
    /// The total number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

/// Consecutive rows of a [`Matrix`], in a tensor that may hold others as well.
#[derive(Clone, Copy, Debug)]
pub struct MatrixRows {
    /// The tensor.
    pub part: Tensor,
    /// Index of the first row in the tensor.
    pub first_row: usize,
    /// Index of the first row in the matrix.
    pub first: usize,
    /// The number of rows.
    pub rows: usize,
}

impl Matrix {
    /// Stacks these tensors vertically into a matrix.
    pub fn new(parts: Vec<Tensor>) -> Matrix {
        Matrix::of_pieces(parts.into_iter().map(|part| (part, 0, part.rows.max() as usize)))
    }

    /// Builds a matrix from rows of tensors, each (tensor, first row, rows). Adjacent pieces are joined.
    pub fn of_pieces(pieces: impl IntoIterator<Item = (Tensor, usize, usize)>) -> Matrix {
        let mut out: Vec<MatrixRows> = Vec::new();
        let mut first = 0;
        for (part, first_row, rows) in pieces {
            match out.last_mut().filter(|p| p.part == part && p.first_row + p.rows == first_row) {
                Some(last) => last.rows += rows,
                None => out.push(MatrixRows { part, first_row, first, rows }),
            }
            first += rows;
        }
        let cols = out[0].part.cols;
        Matrix { pieces: out, rows: first, cols }
    }

    /// Splits the matrix into pieces of at most `max_rows` rows, each within one tensor.
    pub fn chunks(&self, max_rows: usize) -> Vec<MatrixRows> {
        let chunks = |piece: &MatrixRows| {
            let piece = *piece;
            (0..piece.rows).step_by(max_rows.min(piece.rows)).map(move |at| MatrixRows {
                part: piece.part,
                first_row: piece.first_row + at,
                first: piece.first + at,
                rows: max_rows.min(piece.rows - at),
            })
        };
        self.pieces.iter().flat_map(chunks).collect()
    }

    /// The pieces of the upper half, each with the tensor row at which the corresponding rows of the lower half begin,
    /// in the same tensor.
    pub(super) fn halves(&self) -> Vec<(MatrixRows, usize)> {
        let half = self.rows / 2;
        let mut out = Vec::new();
        for piece in self.pieces.iter().filter(|p| p.first < half) {
            let rows = piece.rows.min(half - piece.first);
            let below = piece.first + half;
            let lower = self.pieces.iter().find(|p| p.first <= below && below + rows <= p.first + p.rows);
            let lower = lower.filter(|p| p.part == piece.part).expect("halves are split alike");
            out.push((MatrixRows { rows, ..*piece }, lower.first_row + below - lower.first));
        }
        out
    }

    /// The matrix as one tensor, for example a vector. Panics if it has several.
    pub fn whole(&self) -> Tensor {
        assert_eq!(
            (self.pieces.len(), self.pieces[0].part.rows.max() as usize),
            (1, self.rows),
            "a whole tensor"
        );
        self.pieces[0].part
    }
}

impl From<Tensor> for MatrixRows {
    fn from(part: Tensor) -> MatrixRows {
        MatrixRows { part, first_row: 0, first: 0, rows: part.rows.max() as usize }
    }
}

impl From<Tensor> for Matrix {
    fn from(tensor: Tensor) -> Matrix {
        Matrix::new(vec![tensor])
    }
}
