//! Matrix products: y = x Wᵀ with the low-rank term of LoRA, and their gradients.

use super::accumulate;
use super::case::{Case, Input};
use super::tile;
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{
    Access, Accumulate, Dim, Format, GradientTarget, Launch, Recorder, Slices, Tensor, Word, Work,
};
use crate::reference;

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

/// LoRA's term: y += scale · (x Aᵀ) Bᵀ.
#[derive(Clone, Copy, Debug)]
pub struct LowRank {
    /// A (R, I).
    pub a: Tensor,
    /// B (O, R).
    pub b: Tensor,
    /// alpha / rank, or alpha / sqrt(rank).
    pub scale: f32,
}

/// The root-mean-square normalisation of a product's input rows: x stands for x gain / sqrt(mean(x²) + eps).
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// What each column is weighed by, (1, I).
    pub gain: Tensor,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// y = x Wᵀ (+ scale · (x Aᵀ) Bᵀ) (+ residual).
///   x (N, I)  w (O, I)  residual (N, O)  ->  y (N, O)
pub fn linear(
    r: &mut Recorder,
    x: Tensor,
    w: &Matrix,
    low_rank: Option<LowRank>,
    residual: Option<Tensor>,
) -> Result<Tensor> {
    let y = r.tensor("linear", x.rows, w.rows);
    let h = launch_linear(r, x, w, low_rank, residual, y);
    let w = w.clone();
    let outputs: Vec<Tensor> = h.into_iter().chain([y]).collect();
    r.rule(&outputs, move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        let g = weight_gradients(r, x, &w, low_rank.zip(h), dy);
        for (i, piece) in w.pieces.iter().enumerate() {
            if let Some(dx) = r.gradient_target(x) {
                launch_backward_input(r, dy, piece.first, *piece, 1.0, g.filter(|_| i == 0), dx);
            }
        }
        match residual {
            Some(residual) => super::add::pass_gradient(r, residual, dy),
            None => Ok(()),
        }
    });
    Ok(y)
}

/// The launches of [`linear`]; returns x Aᵀ, where there is a low-rank term.
pub(super) fn launch_linear(
    r: &mut Recorder,
    x: Tensor,
    w: &Matrix,
    low_rank: Option<LowRank>,
    residual: Option<Tensor>,
    y: Tensor,
) -> Option<Tensor> {
    assert_eq!(x.cols, w.cols, "linear: x (N, {}) and w (O, {})", x.cols, w.cols);
    let h = low_rank.map(|l| {
        let h = r.tensor("low rank", x.rows, l.a.rows.max() as usize);
        launch_forward(r, Product::new(x, l.a.into(), h));
        h
    });
    for piece in &w.pieces {
        let low_rank = low_rank.zip(h).map(|(l, h)| (h, l.b, l.scale));
        let product = Product { low_rank, residual, first_col: piece.first, ..Product::new(x, *piece, y) };
        launch_forward(r, product);
    }
    h
}

/// The gradients of w and of the low-rank term, of which x Aᵀ is given as well. Returns what the gradient of x needs of
/// that term: g = scale · dy B, and A.
pub(super) fn weight_gradients(
    r: &mut Recorder,
    x: Tensor,
    w: &Matrix,
    low_rank: Option<(LowRank, Tensor)>,
    dy: Tensor,
) -> Option<(Tensor, Tensor)> {
    for piece in &w.pieces {
        if let Some(dw) = r.gradient_target(piece.part) {
            launch_backward_weight(r, dy, piece.first, x, None, 1.0, *piece, dw);
        }
    }
    low_rank.map(|(l, h)| (low_rank_gradients(r, x, None, l, h, dy, 0), l.a))
}

/// The gradients of A and B from the columns of dy from `first_col` on; returns g = scale · dy B.
pub(super) fn low_rank_gradients(
    r: &mut Recorder,
    x: Tensor,
    norm: Option<(Norm, Tensor)>,
    l: LowRank,
    h: Tensor,
    dy: Tensor,
    first_col: usize,
) -> Tensor {
    let g = r.tensor("d low rank", x.rows, l.b.cols);
    let set = GradientTarget { tensor: g, accumulate: Accumulate::Set };
    launch_backward_input(r, dy, first_col, l.b.into(), l.scale, None, set);
    if let Some(da) = r.gradient_target(l.a) {
        launch_backward_weight(r, g, 0, x, norm, 1.0, l.a.into(), da);
    }
    if let Some(db) = r.gradient_target(l.b) {
        launch_backward_weight(r, dy, first_col, h, None, l.scale, l.b.into(), db);
    }
    g
}

/// Whether rows of these lengths can be read four elements at a time.
pub(super) fn aligned(lengths: &[usize]) -> bool {
    lengths.iter().all(|n| n % 4 == 0)
}

/// W += scale · B A, in place: a LoRA adapter becomes part of its base. No gradient.
///   w (O, I) in regions  a (R, I)  b_transposed (R, O)
pub fn merge_low_rank(r: &mut Recorder, w: &Matrix, a: Tensor, b_transposed: Tensor, scale: f32) {
    assert_eq!((b_transposed.cols, a.cols, a.rows), (w.rows, w.cols, b_transposed.rows), "merge_low_rank");
    for piece in &w.pieces {
        let sum = GradientTarget { tensor: piece.part, accumulate: Accumulate::Add };
        launch_backward_weight(r, b_transposed, piece.first, a, None, scale, *piece, sum);
    }
}

/// What [`launch_forward`] computes.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub x: Tensor,
    pub w: MatrixRows,
    /// Elements of x's rows that take part: all of them, or none for a result of zeros.
    pub inner: usize,
    /// Normalise x first.
    pub norm: Option<Norm>,
    /// What the product is multiplied by.
    pub scale: f32,
    /// h, B, and the term's scale.
    pub low_rank: Option<(Tensor, Tensor, f32)>,
    pub residual: Option<Tensor>,
    pub y: Tensor,
    /// The first column of y that is computed; of the residual alike.
    pub first_col: usize,
}

impl Product {
    /// Plainly x wᵀ.
    pub fn new(x: Tensor, w: MatrixRows, y: Tensor) -> Product {
        let (inner, scale) = (x.cols, 1.0);
        Product { x, w, inner, norm: None, scale, low_rank: None, residual: None, y, first_col: 0 }
    }
}

pub(super) fn launch_forward(r: &mut Recorder, p: Product) {
    assert!(p.norm.is_none() || p.low_rank.is_none(), "a normalised product has no low-rank term of its own");
    let (inner, cols) = (p.inner, p.w.rows);
    let mut args = vec![(p.x, Access::Read), (p.w.part, Access::Read)];
    args.extend(p.norm.map(|norm| (norm.gain, Access::Read)));
    args.extend(p.low_rank.iter().flat_map(|(h, b, _)| [(*h, Access::Read), (*b, Access::Read)]));
    args.extend(p.residual.map(|t| (t, Access::Read)));
    args.push((p.y, Access::Write));
    let rank = p.low_rank.map_or(0, |(h, _, _)| h.cols);
    let terms = inner + rank;
    let lengths = [inner, rank, cols, p.y.cols, p.first_col];
    let (tile, arithmetic) = tile::of_product(r, p.x.rows, p.w.part.format);
    let (groups, mut constants) = tile::divide(r, tile, p.x.rows, cols, aligned(&lengths));
    constants.extend(arithmetic);
    constants.extend([
        ("NORM", p.norm.is_some() as u32),
        ("LOW_RANK", p.low_rank.is_some() as u32),
        ("RESIDUAL", p.residual.is_some() as u32),
    ]);
    r.launch(Launch {
        kernel: KernelKey { name: "linear_forward", constants },
        params: vec![
            p.x.rows.into(),
            inner.into(),
            cols.into(),
            p.y.cols.into(),
            p.first_col.into(),
            p.w.first_row.into(),
            p.w.first.into(),
            rank.into(),
            Word::F32(p.low_rank.map_or(0.0, |(_, _, scale)| scale)),
            Word::F32(p.norm.map_or(0.0, |norm| norm.eps)),
            Word::F32(p.scale),
        ],
        args,
        groups,
        work: Work { flops: 2.0 * (terms * cols) as f64, bytes: 4.0 * (terms + 2 * cols) as f64 },
    });
}

/// dx = or += scale · dy w (+ g A), with the columns of dy from `first_col` on.
pub(super) fn launch_backward_input(
    r: &mut Recorder,
    dy: Tensor,
    first_col: usize,
    w: MatrixRows,
    scale: f32,
    low_rank: Option<(Tensor, Tensor)>,
    dx: GradientTarget,
) {
    let (inner, cols) = (w.rows, w.part.cols);
    let mut args = vec![(dy, Access::Read), (w.part, Access::Read)];
    args.extend(low_rank.iter().flat_map(|(g, a)| [(*g, Access::Read), (*a, Access::Read)]));
    args.push((dx.tensor, Access::Write));
    let rank = low_rank.map_or(0, |(g, _)| g.cols);
    let terms = inner + rank;
    let lengths = [inner, rank, cols, dy.cols, first_col];
    let (groups, mut constants) =
        tile::divide(r, tile::of_rows(r, dy.rows), dy.rows, cols, aligned(&lengths));
    constants.extend([("LOW_RANK", low_rank.is_some() as u32), ("ADD", accumulate(dx))]);
    constants.push(("FORMAT", w.part.format.code()));
    r.launch(Launch {
        kernel: KernelKey { name: "linear_backward_input", constants },
        params: vec![
            dy.rows.into(),
            inner.into(),
            cols.into(),
            dy.cols.into(),
            first_col.into(),
            w.first_row.into(),
            rank.into(),
            Word::F32(scale),
        ],
        args,
        groups,
        work: Work { flops: 2.0 * (terms * cols) as f64, bytes: 4.0 * (terms + 2 * cols) as f64 },
    });
}

/// Slices of the rows that a weight gradient is summed over, so that a small matrix still fills the GPU.
const MAX_SLICES: u32 = 16;
/// Rows that make a slice worth its launch.
const SLICE_ROWS: u32 = 128;

/// The rows of dw that belong to `w` = or += scale · dyᵀ x, with the columns of dy from `first_col` on. Where x stands
/// for its normalised rows, their factors are given with the norm.
#[allow(clippy::too_many_arguments, reason = "the operands of one product")]
pub(super) fn launch_backward_weight(
    r: &mut Recorder,
    dy: Tensor,
    first_col: usize,
    x: Tensor,
    norm: Option<(Norm, Tensor)>,
    scale: f32,
    w: MatrixRows,
    dw: GradientTarget,
) {
    let (out, cols) = (w.rows, x.cols);
    let (tiles, mut constants) =
        tile::divide(r, r.tuning().columns, out, cols, aligned(&[out, cols, dy.cols, first_col]));
    // Of a tile of its own, so that no choice of tiles changes how sums are shared out, and with it the last bits.
    let enough = r.busy().div_ceil((out.div_ceil(32) * cols.div_ceil(16)) as u32);
    let slices = x.rows.max().div_ceil(SLICE_ROWS).clamp(1, MAX_SLICES).min(enough);
    let partial = match slices {
        1 => dw.tensor,
        _ => r.tensor("dw slices", slices as usize * out, cols),
    };
    constants.push(("NORM", norm.is_some() as u32));
    constants.push(("ADD", if slices == 1 { accumulate(dw) } else { 0 }));
    let mut args = vec![(dy, Access::Read), (x, Access::Read)];
    args.extend(norm.iter().flat_map(|(norm, inv)| [(*inv, Access::Read), (norm.gain, Access::Read)]));
    args.push((partial, Access::Write));
    r.launch(Launch {
        kernel: KernelKey { name: "linear_backward_weight", constants },
        params: vec![
            x.rows.into(),
            out.into(),
            cols.into(),
            dy.cols.into(),
            first_col.into(),
            if slices == 1 { w.first_row.into() } else { 0usize.into() },
            slices.into(),
            Word::F32(scale),
        ],
        args,
        groups: tiles.times(slices),
        work: Work {
            flops: 2.0 * x.rows.max() as f64 * cols as f64,
            bytes: 4.0 * (x.rows.max() as f64 + cols as f64),
        },
    });
    if slices > 1 {
        let (len, first) = (out * cols, w.first_row * cols);
        r.sum_slices(Slices { x: partial, rows: Dim::Fixed(slices), share: 1, len, target: dw, first });
    }
}

/// `terms` scaled and summed.
fn combine(terms: &[(f64, &[f64])]) -> Vec<f64> {
    (0..terms[0].1.len()).map(|i| terms.iter().map(|(scale, v)| scale * v[i]).sum()).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // One, a prime, around the tile of 8 and around the 64 lanes; weights in parts; many rows, summed in slices.
    let shapes: [(usize, usize, &[usize]); 8] = [
        (1, 1, &[1]),
        (13, 7, &[17]),
        (7, 8, &[9]),
        (8, 9, &[7]),
        (65, 64, &[63]),
        (67, 33, &[521]),
        (61, 17, &[13, 64, 3]),
        (2048, 64, &[172]),
    ];
    for (n, i, parts) in shapes {
        let o = parts.iter().sum();
        let shape = format!("N {n} I {i} O {parts:?}");
        let inputs = || {
            let x = Input::normal(1, n, i, 1.0).live(0).watched();
            let part = |(k, rows): (usize, &usize)| Input::normal(3 + k as u32, *rows, i, 1.0).watched();
            let dy = Input::normal(2, n, o, 1.0).live(0);
            [x, dy].into_iter().chain(parts.iter().enumerate().map(part)).collect()
        };
        out.push(Case::new(
            "linear_forward",
            &shape,
            inputs(),
            |r, t| Ok(vec![linear(r, t[0], &Matrix::new(t[2..].to_vec()), None, None)?]),
            move |v| vec![reference::linear_forward(&v[0], &v[2..].concat(), n, i, o)],
        ));
        // Twice over, so that the second gradients are added to the first.
        out.push(Case::new(
            "linear_backward",
            &shape,
            inputs(),
            |r, t| {
                let w = Matrix::new(t[2..].to_vec());
                let y = linear(r, t[0], &w, None, None)?;
                let z = linear(r, t[0], &w, None, None)?;
                let sum = super::residual_add(r, y, z)?;
                r.backward(&[(sum, t[1])])?;
                Ok([&t[..1], &t[2..]].concat().iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let dx = reference::linear_backward_input(&v[1], &v[2..].concat(), n, i, o);
                let dw = combine(&[(2.0, &reference::linear_backward_weight(&v[1], &v[0], n, i, o))]);
                let mut first = 0;
                let dw = parts.iter().map(|rows| {
                    first += rows;
                    dw[(first - rows) * i..first * i].to_vec()
                });
                [combine(&[(2.0, &dx)])].into_iter().chain(dw).collect()
            },
        ));
    }
    for (n, i, o, rank) in [(1, 1, 1, 1), (13, 7, 17, 3), (65, 64, 63, 8), (257, 33, 521, 4)] {
        let shape = format!("N {n} I {i} O {o} R {rank}");
        let inputs = move || {
            vec![
                Input::normal(1, n, i, 1.0).live(0).watched(),
                Input::normal(2, o, i, 1.0),
                Input::normal(3, rank, i, 1.0).watched(),
                Input::normal(4, o, rank, 1.0).watched(),
                Input::normal(5, n, o, 1.0).live(0).watched(),
                Input::normal(6, n, o, 1.0).live(0),
            ]
        };
        // With the low-rank term, the residual, both.
        let record = |r: &mut Recorder, t: &[Tensor]| {
            let (low_rank, residual) = (Some(LowRank { a: t[2], b: t[3], scale: 0.5 }), Some(t[4]));
            let terms = [(low_rank, None), (None, residual), (low_rank, residual)];
            terms.map(|(l, residual)| linear(r, t[0], &t[1].into(), l, residual)).into_iter().collect()
        };
        out.push(Case::new("linear_forward", format!("{shape} and residual"), inputs(), record, move |v| {
            let low_rank = reference::lora_forward(&v[0], &v[1], &v[2], &v[3], 0.5, n, i, o, rank).y;
            let plain = reference::linear_forward(&v[0], &v[1], n, i, o);
            let [plain, both] = [plain, low_rank.clone()].map(|y| reference::residual_add(&y, &v[4]));
            vec![low_rank, plain, both]
        }));
        out.push(Case::new(
            "linear_backward",
            format!("{shape} and residual"),
            inputs(),
            move |r, t| {
                let terms: Vec<Tensor> = record(r, t)?;
                let sum = super::residual_add(r, terms[0], terms[1])?;
                let sum = super::residual_add(r, sum, terms[2])?;
                r.backward(&[(sum, t[5])])?;
                Ok([t[0], t[2], t[3], t[4]].iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let g = reference::lora_backward(&v[5], &v[0], &v[1], &v[2], &v[3], 0.5, n, i, o, rank);
                let plain = reference::linear_backward_input(&v[5], &v[1], n, i, o);
                let dx = combine(&[(2.0, &g.dx), (1.0, &plain)]);
                [dx].into_iter().chain([g.da, g.db, v[5].clone()].map(|d| combine(&[(2.0, &d)]))).collect()
            },
        ));
    }
    // Frozen matrices of 16 bits: rounded numbers, products in f32 as ever.
    for format in [Format::F16, Format::Bf16] {
        for (n, i, parts) in [(13, 12, &[17, 8][..]), (65, 64, &[64]), (131, 132, &[93])] {
            let o: usize = parts.iter().sum();
            let mut inputs = vec![
                Input::normal(1, n, i, 1.0).live(0).watched(),
                Input::normal(2, n, o, 1.0).live(0),
                Input::normal(3, 3, i, 1.0),
                Input::normal(4, o, 3, 1.0),
            ];
            let part = |(k, rows): (usize, &usize)| Input::normal(5 + k as u32, *rows, i, 1.0).stored(format);
            inputs.extend(parts.iter().enumerate().map(part));
            let record = |r: &mut Recorder, t: &[Tensor]| {
                let (w, low_rank) = (Matrix::new(t[4..].to_vec()), LowRank { a: t[2], b: t[3], scale: 0.5 });
                let y = linear(r, t[0], &w, None, None)?;
                Ok([y, linear(r, t[0], &w, Some(low_rank), None)?])
            };
            let shape = format!("N {n} I {i} O {parts:?} {format:?}");
            out.push(Case::new(
                "linear_forward",
                &shape,
                inputs.clone(),
                move |r, t| record(r, t).map(Vec::from),
                move |v| {
                    let w = v[4..].concat();
                    let plain = reference::linear_forward(&v[0], &w, n, i, o);
                    vec![plain, reference::lora_forward(&v[0], &w, &v[2], &v[3], 0.5, n, i, o, 3).y]
                },
            ));
            out.push(Case::new(
                "linear_backward",
                &shape,
                inputs,
                move |r, t| {
                    let [y, z] = record(r, t)?;
                    let sum = super::residual_add(r, y, z)?;
                    r.backward(&[(sum, t[1])])?;
                    Ok(r.gradient(t[0]).into_iter().collect())
                },
                move |v| {
                    let w = v[4..].concat();
                    let plain = reference::linear_backward_input(&v[1], &w, n, i, o);
                    let low = reference::lora_backward(&v[1], &v[0], &w, &v[2], &v[3], 0.5, n, i, o, 3);
                    vec![combine(&[(1.0, &plain), (1.0, &low.dx)])]
                },
            ));
        }
    }
    // Rows far beyond the range of f16, all of a size and with elements of ordinary size among them; weights up to its end.
    for (n, spread, w) in [(5, 1.0, 1.0), (37, 1.0, 1e4), (37, 1e-6, 1.0)] {
        let (i, o) = (68, 44);
        let scale = move |k: usize| if k.is_multiple_of(3) { 1e6 } else { 1e6 * spread };
        let x = (0..n * i).map(|k| (k as f32 * 1.7).sin() * scale(k)).collect();
        out.push(Case::new(
            "linear_forward",
            format!("N {n} I {i} O {o} F16, x 1e6 and {:.0e}, w {w:.0e}", 1e6 * spread),
            vec![Input::f32(x, n, i).live(0), Input::normal(2, o, i, w).stored(Format::F16)],
            |r, t| Ok(vec![linear(r, t[0], &t[1].into(), None, None)?]),
            move |v| vec![reference::linear_forward(&v[0], &v[1], n, i, o)],
        ));
    }
    out
}
