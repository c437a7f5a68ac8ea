//! What a block of a layer begins with: normalised rows times a stack of matrices, of which some have a low-rank term.
//! The first launch is the block's own, with what follows the product in it; the rest is the same for all blocks.

use super::linear::{
    LowRank, Matrix, MatrixRows, Norm, Product, launch_backward_input, launch_backward_weight,
    launch_forward, low_rank_gradients,
};
use super::rmsnorm;
use crate::gpu::{Accumulate, GradientTarget, Recorder, Tensor};

/// A stack of matrices that read the same normalised rows.
#[derive(Clone, Debug)]
pub struct Projection {
    /// The normalisation of the rows.
    pub norm: Norm,
    /// The matrices, one below the other: (O, C).
    pub weights: Matrix,
    /// Low-rank terms, each with the first of the stack's rows that it belongs to.
    pub low_rank: Vec<(usize, LowRank)>,
}

/// What the forward pass leaves for the block's launch and for the backward pass.
#[derive(Clone)]
pub(super) struct Prepared {
    /// The low-rank terms, (N, O), to be added to the product.
    pub addend: Option<Tensor>,
    /// What each row is multiplied by, (N, 1), where the backward pass will need it: the block's launch writes it.
    pub inv: Option<Tensor>,
    low: Vec<Tensor>,
}

impl Prepared {
    /// Every tensor that was made, for the block's gradient rule.
    pub fn outputs(&self) -> impl Iterator<Item = Tensor> {
        self.low.iter().copied().chain(self.addend).chain(self.inv)
    }
}

/// Computes the low-rank terms.
pub(super) fn prepare(r: &mut Recorder, x: Tensor, p: &Projection) -> Prepared {
    assert_eq!((p.norm.gain.cols, p.weights.cols), (x.cols, x.cols), "projection of x (N, {})", x.cols);
    let inv = r.is_training().then(|| r.tensor("inv", x.rows, 1));
    if p.low_rank.is_empty() {
        return Prepared { addend: None, inv, low: Vec::new() };
    }
    let addend = r.tensor("low rank terms", x.rows, p.weights.rows);
    let mut low = Vec::new();
    let mut next = 0;
    for (first, l) in &p.low_rank {
        let h = r.tensor("low rank", x.rows, l.a.rows.max() as usize);
        launch_forward(r, Product { norm: Some(p.norm), ..Product::new(x, l.a.into(), h) });
        fill_zero(r, h, addend, next..*first);
        launch_forward(
            r,
            Product { scale: l.scale, first_col: *first, ..Product::new(h, l.b.into(), addend) },
        );
        next = first + l.b.rows.max() as usize;
        low.push(h);
    }
    fill_zero(r, low[0], addend, next..p.weights.rows);
    Prepared { addend: Some(addend), inv, low }
}

/// Writes zeros to the columns of the addend that have no term: a product of no elements.
fn fill_zero(r: &mut Recorder, h: Tensor, addend: Tensor, columns: std::ops::Range<usize>) {
    if !columns.is_empty() {
        let nothing = MatrixRows { part: h, first_row: 0, first: 0, rows: columns.len() };
        launch_forward(r, Product { inner: 0, first_col: columns.start, ..Product::new(h, nothing, addend) });
    }
}

/// The gradients of everything that went into the product, from that of its result, (N, O).
pub(super) fn backward(r: &mut Recorder, x: Tensor, p: &Projection, prepared: &Prepared, dy: Tensor) {
    let inv = prepared.inv.expect("kept in training");
    let norm = Some((p.norm, inv));
    for piece in &p.weights.pieces {
        if let Some(dw) = r.gradient_target(piece.part) {
            launch_backward_weight(r, dy, piece.first, x, norm, 1.0, *piece, dw);
        }
    }
    let mut terms: Vec<(Tensor, Tensor)> = Vec::new();
    for ((first, l), h) in p.low_rank.iter().zip(&prepared.low) {
        terms.push((low_rank_gradients(r, x, norm, *l, *h, dy, *first), l.a));
    }
    if !r.needs_gradient(x) && !r.needs_gradient(p.norm.gain) {
        return;
    }
    let dnormed = r.tensor("d normed", x.rows, x.cols);
    let mut accumulate = Accumulate::Set;
    let mut terms = terms.into_iter();
    for piece in &p.weights.pieces {
        let target = GradientTarget { tensor: dnormed, accumulate };
        launch_backward_input(r, dy, piece.first, *piece, 1.0, terms.next(), target);
        accumulate = Accumulate::Add;
    }
    for (g, a) in terms {
        let target = GradientTarget { tensor: dnormed, accumulate };
        launch_backward_input(r, g, 0, a.into(), 1.0, None, target);
    }
    rmsnorm::backward(r, dnormed, x, p.norm.gain, inv);
}
