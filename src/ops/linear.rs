//! Matrix products: y = x Wᵀ with the low-rank term of LoRA, and their gradients.

use super::accumulate;
use super::case::{Case, Input};
use super::tile::Tile;
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Accumulate, Dim, GradientTarget, Groups, Launch, Recorder, Tensor, Word, Work};
use crate::reference;

/// A weight matrix (rows, cols). Above the adapter's binding limit it is split by rows into several tensors.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The parts, in order of their rows.
    pub parts: Vec<Tensor>,
    /// All rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

/// Consecutive rows of a part of a [`Matrix`].
#[derive(Clone, Copy, Debug)]
pub struct MatrixRows {
    /// The part.
    pub part: Tensor,
    /// The first of the rows in the part.
    pub first_row: usize,
    /// The first of the rows in the matrix.
    pub first: usize,
    /// How many.
    pub rows: usize,
}

impl Matrix {
    /// A matrix of these parts.
    pub fn new(parts: Vec<Tensor>) -> Matrix {
        let rows = parts.iter().map(|p| p.rows.max() as usize).sum();
        let cols = parts[0].cols;
        Matrix { parts, rows, cols }
    }

    /// The matrix in pieces of at most `max_rows` rows, none of which spans two parts.
    pub fn chunks(&self, max_rows: usize) -> Vec<MatrixRows> {
        let mut out = Vec::new();
        let mut first = 0;
        for part in &self.parts {
            let rows = part.rows.max() as usize;
            for first_row in (0..rows).step_by(max_rows) {
                let rows = max_rows.min(rows - first_row);
                out.push(MatrixRows { part: *part, first_row, first, rows });
                first += rows;
            }
        }
        out
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

/// y = x Wᵀ (+ scale · (x Aᵀ) Bᵀ) (+ residual).
///   x (N, I)  w (O, I)  residual (N, O)  ->  y (N, O)
pub fn linear(
    r: &mut Recorder,
    x: Tensor,
    w: &Matrix,
    low_rank: Option<LowRank>,
    residual: Option<Tensor>,
) -> Result<Tensor> {
    assert_eq!(x.cols, w.cols, "linear: x (N, {}) and w (O, {})", x.cols, w.cols);
    let y = r.tensor("linear", x.rows, w.rows);
    let h = low_rank.map(|l| {
        let h = r.tensor("low rank", x.rows, l.a.rows.max() as usize);
        launch_forward(r, x, l.a.into(), None, None, h, 0);
        h
    });
    for rows in w.chunks(usize::MAX) {
        let term = low_rank.zip(h).map(|(l, h)| (h, l.b, l.scale));
        launch_forward(r, x, rows, term, residual, y, rows.first);
    }
    let w = w.clone();
    let outputs: Vec<Tensor> = h.into_iter().chain([y]).collect();
    r.rule(&outputs, move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        // g = scale · dy B, shared by the gradients of x and A.
        let g = low_rank.zip(h).map(|(l, h)| {
            let g = r.tensor("d low rank", x.rows, l.b.cols);
            let set = GradientTarget { tensor: g, accumulate: Accumulate::Set };
            launch_backward_input(r, dy, 0, l.b.into(), l.scale, None, set);
            (l, h, g)
        });
        for rows in w.chunks(usize::MAX) {
            if let Some(dw) = r.gradient_target(rows.part) {
                launch_backward_weight(r, dy, rows.first, x, 1.0, rows, dw);
            }
        }
        if let Some((l, h, g)) = g {
            if let Some(da) = r.gradient_target(l.a) {
                launch_backward_weight(r, g, 0, x, 1.0, l.a.into(), da);
            }
            if let Some(db) = r.gradient_target(l.b) {
                launch_backward_weight(r, dy, 0, h, l.scale, l.b.into(), db);
            }
        }
        for (i, rows) in w.chunks(usize::MAX).into_iter().enumerate() {
            if let Some(dx) = r.gradient_target(x) {
                let term = g.filter(|_| i == 0).map(|(l, _, g)| (g, l.a));
                launch_backward_input(r, dy, rows.first, rows, 1.0, term, dx);
            }
        }
        match residual {
            Some(residual) => super::add::pass_gradient(r, residual, dy),
            None => Ok(()),
        }
    });
    Ok(y)
}

/// Whether rows of these lengths can be read four elements at a time.
fn aligned(lengths: &[usize]) -> bool {
    lengths.iter().all(|n| n % 4 == 0)
}

/// W += scale · B A, in place: an adapter becomes part of its base. No gradient.
///   w (O, I) in regions  a (R, I)  b_transposed (R, O)
pub fn merge_low_rank(r: &mut Recorder, w: &Matrix, a: Tensor, b_transposed: Tensor, scale: f32) {
    assert_eq!((b_transposed.cols, a.cols, a.rows), (w.rows, w.cols, b_transposed.rows), "merge_low_rank");
    for rows in w.chunks(usize::MAX) {
        let sum = GradientTarget { tensor: rows.part, accumulate: Accumulate::Add };
        launch_backward_weight(r, b_transposed, rows.first, a, scale, rows, sum);
    }
}

/// Columns of y from `first_col` on = x wᵀ (+ scale · h bᵀ) (+ those of the residual).
pub(super) fn launch_forward(
    r: &mut Recorder,
    x: Tensor,
    w: MatrixRows,
    low_rank: Option<(Tensor, Tensor, f32)>,
    residual: Option<Tensor>,
    y: Tensor,
    first_col: usize,
) {
    let (inner, cols) = (x.cols, w.rows);
    let mut args = vec![(x, Access::Read), (w.part, Access::Read)];
    let mut rank = 0;
    if let Some((h, b, _)) = low_rank {
        rank = h.cols;
        args.extend([(h, Access::Read), (b, Access::Read)]);
    }
    args.extend(residual.map(|t| (t, Access::Read)));
    args.push((y, Access::Write));
    let scale = low_rank.map_or(0.0, |l| l.2);
    let terms = inner + rank;
    let lengths = [inner, rank, cols, y.cols, first_col];
    let (groups, mut constants) = Tile::wide(r).over(x.rows, cols, aligned(&lengths));
    constants.extend([("LOW_RANK", low_rank.is_some() as u32), ("RESIDUAL", residual.is_some() as u32)]);
    r.launch(Launch {
        kernel: KernelKey { name: "linear_forward", constants },
        params: vec![
            x.rows.into(),
            inner.into(),
            cols.into(),
            y.cols.into(),
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
    let mut rank = 0;
    if let Some((g, a)) = low_rank {
        rank = g.cols;
        args.extend([(g, Access::Read), (a, Access::Read)]);
    }
    args.push((dx.tensor, Access::Write));
    let terms = inner + rank;
    let lengths = [inner, rank, cols, dy.cols, first_col];
    let (groups, mut constants) = Tile::wide(r).over(dy.rows, cols, aligned(&lengths));
    constants.extend([("LOW_RANK", low_rank.is_some() as u32), ("ADD", accumulate(dx))]);
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

/// Slices of the rows that a weight gradient is summed over, so that a small matrix still fills the adapter.
const MAX_SLICES: u32 = 16;
/// Rows that make a slice worth its launch.
const SLICE_ROWS: u32 = 128;

/// Slices to sum `rows` in, where one slice alone has `groups` workgroups.
pub(super) fn slices(rows: Dim, groups: Groups) -> u32 {
    let enough = 64u32.div_ceil(groups.count(&[0; 8]));
    rows.max().div_ceil(SLICE_ROWS).clamp(1, MAX_SLICES).min(enough)
}

/// The rows of dw that belong to `w` = or += scale · dyᵀ x, with the columns of dy from `first_col` on.
pub(super) fn launch_backward_weight(
    r: &mut Recorder,
    dy: Tensor,
    first_col: usize,
    x: Tensor,
    scale: f32,
    w: MatrixRows,
    dw: GradientTarget,
) {
    let (out, cols) = (w.rows, x.cols);
    let (tiles, mut constants) = Tile::square(r).over(out, cols, aligned(&[out, cols, dy.cols, first_col]));
    let slices = slices(x.rows, tiles);
    let partial = match slices {
        1 => dw.tensor,
        _ => r.tensor("dw slices", slices as usize * out, cols),
    };
    constants.push(("ADD", if slices == 1 { accumulate(dw) } else { 0 }));
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
        args: vec![(dy, Access::Read), (x, Access::Read), (partial, Access::Write)],
        groups: Groups {
            rows: tiles.rows,
            rows_per_group: tiles.rows_per_group,
            columns: tiles.columns * slices,
        },
        work: Work {
            flops: 2.0 * x.rows.max() as f64 * cols as f64,
            bytes: 4.0 * (x.rows.max() as f64 + cols as f64),
        },
    });
    if slices > 1 {
        reduce_slices(r, partial, slices as usize, w.first_row * cols, out * cols, dw);
    }
}

/// `len` elements of the target from `first` on = or += the sum of the `slices` equal parts of `x`, in order.
pub(super) fn reduce_slices(
    r: &mut Recorder,
    x: Tensor,
    slices: usize,
    first: usize,
    len: usize,
    target: GradientTarget,
) {
    r.launch(Launch {
        kernel: KernelKey { name: "reduce_slices", constants: vec![("ADD", accumulate(target))] },
        params: vec![slices.into(), len.into(), first.into()],
        args: vec![(x, Access::Read), (target.tensor, Access::Write)],
        groups: Groups::over(len, 256),
        work: Work { flops: slices as f64, bytes: 4.0 * (slices + 1) as f64 },
    });
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
    out
}
