//! Weight matrices, in pieces.

use crate::gpu::Tensor;

/// A weight matrix (rows, cols): pieces that lie in one tensor or in several. Above the GPU's binding limit a matrix
/// is split by rows; and several matrices that read the same rows may be stacked as one.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The pieces, in order of their rows.
    pub pieces: Vec<MatrixRows>,
    /// All rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

/// Consecutive rows of a [`Matrix`], in a tensor that may hold others as well.
#[derive(Clone, Copy, Debug)]
pub struct MatrixRows {
    /// The tensor.
    pub part: Tensor,
    /// The first of the rows in the tensor.
    pub first_row: usize,
    /// The first of the rows in the matrix.
    pub first: usize,
    /// How many.
    pub rows: usize,
}

impl Matrix {
    /// A matrix of these tensors, one below the other.
    pub fn new(parts: Vec<Tensor>) -> Matrix {
        Matrix::of_pieces(parts.into_iter().map(|part| (part, 0, part.rows.max() as usize)))
    }

    /// A matrix of rows of tensors: (tensor, first row, rows) each. Neighbours are joined.
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

    /// The matrix in pieces of at most `max_rows` rows, none of which spans two tensors.
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

    /// The upper half's pieces, each with the first row of the same rows of the lower half, in the same tensor.
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

    /// The whole matrix where it is one tensor, as a vector is.
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
