//! Matrix products: their launches. How an op uses the sums is defined by its kernel in `left`, `right` and `finish`
//! (or `finish_pair`); how a device computes the product is defined in [`tiles`].

mod tiles;

use super::matrix::MatrixRows;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{
    Accumulate, Arg, Dim, GradientTarget, Launch, ProductForm, Recorder, Slices, Tensor, Word, Work, read,
    write,
};
use tiles::along_neither;
pub(super) use tiles::{Forward, Shared, along_both, along_left};

/// The RMSNorm of a product's rows, computed within the product.
#[derive(Clone, Copy)]
pub(super) struct FusedNorm {
    /// The weight of each column.
    pub weight: Tensor,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// Whether rows of these lengths can be read four elements at a time.
pub(super) fn aligned(lengths: &[usize]) -> bool {
    lengths.iter().all(|n| n % 4 == 0)
}

/// A product without an op: of left (rows, inner) and right (cols, inner) along both; of left (rows, inner) and right
/// (inner, cols) along the left; of left (inner, rows) and right (inner, cols) along neither.
pub(crate) fn product(r: &mut Recorder, form: ProductForm, left: Tensor, right: Tensor) -> Tensor {
    let rows = |tensor: Tensor| tensor.rows.max() as usize;
    let (height, width) = match form {
        ProductForm::AlongBoth => (left.rows, rows(right)),
        ProductForm::AlongLeft => (left.rows, right.cols),
        ProductForm::AlongNeither => (Dim::from(left.cols), right.cols),
    };
    let out = r.tensor("product", height, width);
    let target = GradientTarget { tensor: out, accumulate: Accumulate::Set };
    match form {
        ProductForm::AlongBoth => launch_forward(r, Product::new(left, right.into(), out)),
        ProductForm::AlongLeft => launch_backward_input(r, left, 0, right.into(), 1.0, None, target),
        ProductForm::AlongNeither => launch_backward_weight(r, left, 0, right, None, 1.0, out.into(), target),
    }
    out
}

constants! {
    struct LinearForward {
        lora: bool,
        bias: bool,
        residual: bool,
        add: bool,
    }
}

/// The arguments of [`launch_forward`].
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub x: Tensor,
    pub w: MatrixRows,
    /// The number of x's columns to sum over: all of them, or 0 for a result of zeros.
    pub inner: usize,
    /// Normalises x first.
    pub norm: Option<FusedNorm>,
    /// The factor of the product.
    pub scale: f32,
    /// h, B, and the term's scale.
    pub lora: Option<(Tensor, Tensor, f32)>,
    /// The bias of each column of y, (1, O).
    pub bias: Option<Tensor>,
    pub residual: Option<Tensor>,
    pub y: Tensor,
    /// Whether the product is added to y.
    pub add: bool,
    /// The first column of y (and of the residual) that is computed.
    pub first_col: usize,
}

impl Product {
    /// The plain product x wᵀ.
    pub fn new(x: Tensor, w: MatrixRows, y: Tensor) -> Product {
        Product {
            x,
            w,
            inner: x.cols,
            norm: None,
            scale: 1.0,
            lora: None,
            bias: None,
            residual: None,
            y,
            add: false,
            first_col: 0,
        }
    }
}

pub(super) fn launch_forward(r: &mut Recorder, p: Product) {
    assert!(p.norm.is_none() || p.lora.is_none(), "a normalised product has no LoRA term of its own");
    let (inner, cols) = (p.inner, p.w.rows);
    let rank = p.lora.map_or(0, |(h, _, _)| h.cols);
    let terms = inner + rank;
    let along = aligned(&[p.x.cols, inner, rank]);
    let across = aligned(&[cols, p.y.cols, p.first_col]);
    let mut args = vec![read("x", p.x).rows(along), read("w", p.w.part).rows(along)];
    args.extend(p.norm.map(|norm| read("norm_weight", norm.weight).rows(along)));
    args.extend(p.lora.iter().flat_map(|(h, b, _)| [read("h", *h).rows(along), read("b", *b).rows(along)]));
    args.extend(p.bias.map(|t| read("bias", t).rows(across)));
    args.extend(p.residual.map(|t| read("residual", t).rows(across)));
    args.push(write("y", p.y).rows(across));
    let mut params: Vec<(&str, Word)> = vec![
        ("rows", p.x.rows.into()),
        ("inner", inner.into()),
        ("cols", cols.into()),
        ("stride", p.y.cols.into()),
        ("first_col", p.first_col.into()),
        ("first_row", p.w.first_row.into()),
        ("scale", p.scale.into()),
    ];
    if let Some((_, _, scale)) = p.lora {
        params.extend([("b_row", p.w.first.into()), ("rank", rank.into()), ("lora_scale", Word::F32(scale))]);
    }
    params.extend(p.norm.map(|norm| ("eps", Word::F32(norm.eps))));
    let kind = LinearForward {
        lora: p.lora.is_some(),
        bias: p.bias.is_some(),
        residual: p.residual.is_some(),
        add: p.add,
    };
    let forward = Forward {
        rows: p.x.rows,
        cols,
        inner,
        format: p.w.part.format,
        two_terms: kind.lora,
        paired: false,
        norm: p.norm.is_some(),
    };
    let Shared { groups, mut constants } = along_both(r, forward);
    constants.extend(kind.list());
    r.launch(Launch {
        kernel: "linear_forward",
        constants,
        params,
        args,
        groups,
        work: Work { flops: 2.0 * (terms * cols) as f64, bytes: 4.0 * (terms + 2 * cols) as f64 },
    });
}

constants! {
    struct LinearBackwardInput {
        lora: bool,
        add: bool,
    }
}

/// dx = or += scale · dy w (+ g A), using the columns of dy from `first_col` on.
pub(super) fn launch_backward_input(
    r: &mut Recorder,
    dy: Tensor,
    first_col: usize,
    w: MatrixRows,
    scale: f32,
    lora: Option<(Tensor, Tensor)>,
    dx: GradientTarget,
) {
    let (inner, cols) = (w.rows, w.part.cols);
    let rank = lora.map_or(0, |(g, _)| g.cols);
    let terms = inner + rank;
    let along = aligned(&[inner, rank, dy.cols, first_col]);
    let across = aligned(&[cols]);
    let mut args = vec![read("dy", dy).rows(along), read("w", w.part).rows(across)];
    args.extend(lora.iter().flat_map(|(g, a)| [read("g", *g).rows(along), read("a", *a).rows(across)]));
    args.push(write("dx", dx.tensor).rows(across));
    let mut params: Vec<(&str, Word)> = vec![
        ("rows", dy.rows.into()),
        ("inner", inner.into()),
        ("cols", cols.into()),
        ("stride", dy.cols.into()),
        ("first_col", first_col.into()),
        ("first_row", w.first_row.into()),
        ("scale", scale.into()),
    ];
    params.extend(lora.map(|_| ("rank", rank.into())));
    let kind = LinearBackwardInput { lora: lora.is_some(), add: dx.accumulate == Accumulate::Add };
    let Shared { groups, mut constants } =
        along_left(r, (dy.rows, cols), inner, w.part.format, kind.lora, false);
    constants.extend(kind.list());
    r.launch(Launch {
        kernel: "linear_backward_input",
        constants,
        params,
        args,
        groups,
        work: Work { flops: 2.0 * (terms * cols) as f64, bytes: 4.0 * (terms + 2 * cols) as f64 },
    });
}

/// The most slices of rows that a weight gradient is summed in, so that a small matrix still fills the GPU.
const MAX_SLICES: u32 = 16;
/// The number of rows that justifies a slice.
const SLICE_ROWS: u32 = 128;

constants! {
    struct LinearBackwardWeight {
        normalised: bool,
        add: bool,
    }
}

/// The rows of dw that belong to `w` = or += scale · dyᵀ x, using the columns of dy from `first_col` on. If x stands
/// for its normalised rows, the norm's weight and the rows' inverse root mean squares are given.
#[allow(clippy::too_many_arguments, reason = "the operands of one product")]
pub(super) fn launch_backward_weight(
    r: &mut Recorder,
    dy: Tensor,
    first_col: usize,
    x: Tensor,
    norm: Option<(Tensor, Tensor)>,
    scale: f32,
    w: MatrixRows,
    dw: GradientTarget,
) {
    let (out, cols) = (w.rows, x.cols);
    // Based on a fixed tile, so that the choice of tiles does not change the slices, and with them the last bits of the
    // sums.
    let enough = r.busy().div_ceil((out.div_ceil(32) * cols.div_ceil(16)) as u32);
    let slices = x.rows.max().div_ceil(SLICE_ROWS).clamp(1, MAX_SLICES).min(enough);
    let partial = match slices {
        1 => dw.tensor,
        _ => r.tensor("dw slices", slices as usize * out, cols),
    };
    let kind = LinearBackwardWeight {
        normalised: norm.is_some(),
        add: slices == 1 && dw.accumulate == Accumulate::Add,
    };
    let Shared { groups, mut constants } = along_neither(r, (out, cols), x.rows, slices);
    constants.extend(kind.list());
    let down = aligned(&[out, dy.cols, first_col]);
    let across = aligned(&[cols]);
    let mut args: Vec<Arg> = vec![read("dy", dy).rows(down), read("x", x).rows(across)];
    args.extend(norm.iter().flat_map(|(weight, inverse)| {
        [read("inverse_rms", *inverse), read("norm_weight", *weight).rows(across)]
    }));
    args.push(write("dw", partial).rows(across));
    r.launch(Launch {
        kernel: "linear_backward_weight",
        constants,
        params: vec![
            ("rows", x.rows.into()),
            ("out", out.into()),
            ("cols", cols.into()),
            ("stride", dy.cols.into()),
            ("first_col", first_col.into()),
            ("first_row", if slices == 1 { w.first_row.into() } else { 0usize.into() }),
            ("slices", slices.into()),
            ("scale", scale.into()),
        ],
        args,
        groups,
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
