//! Linear layers with bias and LoRA terms: y = x Wᵀ + bias + Σ scale · (x Aᵀ) Bᵀ, and their gradients.

use super::matrix::{Matrix, MatrixRows};
use super::norm::{self, Norm};
use super::product::{FusedNorm, Product, launch_backward_input, launch_backward_weight, launch_forward};
use crate::error::Result;
use crate::gpu::{
    Accumulate, Dim, GradientTarget, Groups, Launch, Recorder, Slices, Tensor, Work, read, write,
};

/// A linear layer: one matrix, or several with the same input, stacked vertically.
#[derive(Clone, Debug)]
pub struct Linear {
    /// W (O, I).
    pub weights: Matrix,
    /// The bias of each column, (1, O).
    pub bias: Option<Tensor>,
    /// LoRA terms, each with the first column that it is added to.
    pub lora: Vec<(usize, Lora)>,
}

/// A LoRA term: y += scale · (x Aᵀ) Bᵀ (Hu et al. 2021, arXiv 2106.09685).
#[derive(Clone, Copy, Debug)]
pub struct Lora {
    /// A (R, I).
    pub a: Tensor,
    /// B (O, R).
    pub b: Tensor,
    /// alpha / rank, or alpha / sqrt(rank).
    pub scale: f32,
}

impl Linear {
    /// Returns the LoRA term if it is the only one and covers all columns, so that it can be part of the product
    /// itself.
    fn whole_term(&self) -> Option<Lora> {
        match self.lora[..] {
            [(0, term)] if term.b.rows.max() as usize == self.weights.rows => Some(term),
            _ => None,
        }
    }
}

impl From<Matrix> for Linear {
    fn from(weights: Matrix) -> Linear {
        Linear { weights, bias: None, lora: Vec::new() }
    }
}

impl From<Tensor> for Linear {
    fn from(weights: Tensor) -> Linear {
        Matrix::from(weights).into()
    }
}

/// y = x Wᵀ (+ bias) (+ LoRA terms) (+ residual).
///   x (N, I)  w (O, I)  residual (N, O)  ->  y (N, O)
pub fn linear(r: &mut Recorder, x: Tensor, w: &Linear, residual: Option<Tensor>) -> Result<Tensor> {
    let y = r.tensor("linear", x.rows, w.weights.rows);
    let hidden = launch(r, x, w, residual, y);
    let w = w.clone();
    let outputs: Vec<Tensor> = hidden.iter().copied().chain([y]).collect();
    r.rule(&outputs, move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        let terms = weight_gradients(r, x, None, &w, &hidden, dy);
        let target = |r: &mut Recorder, _: usize| r.gradient_target(x);
        input_gradient(r, &w, &terms, dy, target);
        match residual {
            Some(residual) => super::add::pass_gradient(r, residual, dy),
            None => Ok(()),
        }
    });
    Ok(y)
}

/// Records the launches of [`linear`]; returns x Aᵀ of each LoRA term.
pub(super) fn launch(
    r: &mut Recorder,
    x: Tensor,
    w: &Linear,
    residual: Option<Tensor>,
    y: Tensor,
) -> Vec<Tensor> {
    assert_eq!(x.cols, w.weights.cols, "linear: x (N, {}) and w (O, {})", x.cols, w.weights.cols);
    let hidden = low_rank_inputs(r, x, None, w);
    let whole = w.whole_term();
    for piece in &w.weights.pieces {
        let lora = whole.map(|term| (hidden[0], term.b, term.scale));
        let (bias, first_col) = (w.bias, piece.first);
        launch_forward(r, Product { lora, bias, residual, first_col, ..Product::new(x, *piece, y) });
    }
    if whole.is_none() {
        for ((first_col, term), h) in w.lora.iter().zip(&hidden) {
            let (scale, first_col) = (term.scale, *first_col);
            launch_forward(r, Product { scale, first_col, add: true, ..Product::new(*h, term.b.into(), y) });
        }
    }
    hidden
}

/// Returns x Aᵀ of each LoRA term; x is normalised first if a norm is given.
fn low_rank_inputs(r: &mut Recorder, x: Tensor, norm: Option<FusedNorm>, w: &Linear) -> Vec<Tensor> {
    let launch = |(_, term): &(usize, Lora)| {
        let h = r.tensor("lora", x.rows, term.a.rows.max() as usize);
        launch_forward(r, Product { norm, ..Product::new(x, term.a.into(), h) });
        h
    };
    w.lora.iter().map(launch).collect()
}

/// The LoRA terms that a block's first launch adds to its product.
#[derive(Clone)]
pub(super) struct LoraTerms {
    /// The terms' sum, (N, O).
    pub sum: Option<Tensor>,
    /// x Aᵀ of each term.
    pub hidden: Vec<Tensor>,
}

/// Computes the LoRA terms of (normalised) rows in launches of their own.
pub(super) fn lora_terms(r: &mut Recorder, x: Tensor, norm: Option<FusedNorm>, w: &Linear) -> LoraTerms {
    let hidden = low_rank_inputs(r, x, norm, w);
    if hidden.is_empty() {
        return LoraTerms { sum: None, hidden };
    }
    let sum = r.tensor("lora terms", x.rows, w.weights.rows);
    let mut next = 0;
    for ((first, term), h) in w.lora.iter().zip(&hidden) {
        fill_zero(r, *h, sum, next..*first);
        let product = Product::new(*h, term.b.into(), sum);
        launch_forward(r, Product { scale: term.scale, first_col: *first, ..product });
        next = first + term.b.rows.max() as usize;
    }
    fill_zero(r, hidden[0], sum, next..w.weights.rows);
    LoraTerms { sum: Some(sum), hidden }
}

/// Writes zeros to columns without a term: a product with an empty sum.
fn fill_zero(r: &mut Recorder, h: Tensor, sum: Tensor, columns: std::ops::Range<usize>) {
    if !columns.is_empty() {
        let nothing = MatrixRows { part: h, first_row: 0, first: 0, rows: columns.len() };
        launch_forward(r, Product { inner: 0, first_col: columns.start, ..Product::new(h, nothing, sum) });
    }
}

/// Computes the gradients of weights, bias and LoRA terms, given x Aᵀ of each. If x stands for its normalised rows, the
/// norm's weight and the rows' inverse root mean squares are given. Returns for each LoRA term what the gradient of x
/// needs: scale · dy B, and A.
pub(super) fn weight_gradients(
    r: &mut Recorder,
    x: Tensor,
    norm: Option<(Tensor, Tensor)>,
    w: &Linear,
    hidden: &[Tensor],
    dy: Tensor,
) -> Vec<(Tensor, Tensor)> {
    for piece in &w.weights.pieces {
        if let Some(dw) = r.gradient_target(piece.part) {
            launch_backward_weight(r, dy, piece.first, x, norm, 1.0, *piece, dw);
        }
    }
    if let Some(target) = w.bias.and_then(|bias| r.gradient_target(bias)) {
        sum_columns(r, dy, target);
    }
    let term = |((first, term), h): (&(usize, Lora), &Tensor)| {
        let g = r.tensor("d lora", x.rows, term.b.cols);
        let set = GradientTarget { tensor: g, accumulate: Accumulate::Set };
        launch_backward_input(r, dy, *first, term.b.into(), term.scale, None, set);
        if let Some(da) = r.gradient_target(term.a) {
            launch_backward_weight(r, g, 0, x, norm, 1.0, term.a.into(), da);
        }
        if let Some(db) = r.gradient_target(term.b) {
            launch_backward_weight(r, dy, *first, *h, None, term.scale, term.b.into(), db);
        }
        (g, term.a)
    };
    w.lora.iter().zip(hidden).map(term).collect()
}

/// dx = or += dy W + Σ g A, in as many launches as there are pieces: `target` returns where each of them writes, or
/// `None` if no gradient of x is needed.
pub(super) fn input_gradient(
    r: &mut Recorder,
    w: &Linear,
    terms: &[(Tensor, Tensor)],
    dy: Tensor,
    mut target: impl FnMut(&mut Recorder, usize) -> Option<GradientTarget>,
) {
    let mut terms = terms.iter().copied();
    for (i, piece) in w.weights.pieces.iter().enumerate() {
        let Some(dx) = target(r, i) else { return };
        launch_backward_input(r, dy, piece.first, *piece, 1.0, terms.next(), dx);
    }
    for (i, (g, a)) in terms.enumerate() {
        let Some(dx) = target(r, w.weights.pieces.len() + i) else { return };
        launch_backward_input(r, g, 0, a.into(), 1.0, None, dx);
    }
}

/// Computes the gradients of all inputs of a product of rows, from that of its result, (N, O). If the launch normalised
/// the rows, the norm and their inverse root mean squares are given.
pub(super) fn fused_backward(
    r: &mut Recorder,
    x: Tensor,
    norm: Option<(Norm, Tensor)>,
    w: &Linear,
    hidden: &[Tensor],
    dy: Tensor,
) {
    let weight_and_inverse = norm.map(|(norm, inverse)| (norm.weight, inverse));
    let terms = weight_gradients(r, x, weight_and_inverse, w, hidden, dy);
    let Some((norm, inverse)) = norm else {
        return input_gradient(r, w, &terms, dy, |r, _| r.gradient_target(x));
    };
    if !r.needs_gradient(x) && !r.needs_gradient(norm.weight) {
        return;
    }
    let dnormed = r.tensor("d normed", x.rows, x.cols);
    input_gradient(r, w, &terms, dy, |_, i| {
        let accumulate = if i == 0 { Accumulate::Set } else { Accumulate::Add };
        Some(GradientTarget { tensor: dnormed, accumulate })
    });
    norm::fused_backward(r, dnormed, x, &norm, inverse);
}

/// The number of rows that an invocation sums.
const SUM_ROWS: u32 = 64;

/// Sums x over its rows: the gradient of a bias.
fn sum_columns(r: &mut Recorder, x: Tensor, target: GradientTarget) {
    let slices = x.rows.max().div_ceil(SUM_ROWS);
    let partial = r.tensor("column sums", slices as usize, x.cols);
    r.launch(Launch {
        kernel: "column_sum",
        constants: vec![],
        params: vec![("rows", x.rows.into()), ("cols", x.cols.into()), ("share", SUM_ROWS.into())],
        args: vec![read("x", x), write("y", partial)],
        groups: Groups::over(x.rows, SUM_ROWS).times(x.cols.div_ceil(64) as u32),
        work: Work { flops: x.cols as f64, bytes: 4.0 * x.cols as f64 },
    });
    let rows: Dim = x.rows;
    r.sum_slices(Slices { x: partial, rows, share: SUM_ROWS, len: x.cols, target, first: 0 });
}

/// W += scale · B A, in place: merges a LoRA adapter into its base weights. No gradient.
///   w (O, I) in regions  a (R, I)  b_transposed (R, O)
pub fn merge_lora(r: &mut Recorder, w: &Matrix, a: Tensor, b_transposed: Tensor, scale: f32) {
    assert_eq!((b_transposed.cols, a.cols, a.rows), (w.rows, w.cols, b_transposed.rows), "merge_lora");
    for piece in &w.pieces {
        let sum = GradientTarget { tensor: piece.part, accumulate: Accumulate::Add };
        launch_backward_weight(r, b_transposed, piece.first, a, None, scale, *piece, sum);
    }
}
