//! Normalisation of rows, or of groups of their columns such as heads: RMSNorm or LayerNorm.

use super::product::{FusedNorm, aligned};
use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{
    Accumulate, DeviceKind, GradientTarget, Groups, Launch, Products, Recorder, Slices, Tensor, Word, Work,
    read, write,
};

/// A normalisation.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// The weight of each column, (1, C).
    pub weight: Tensor,
    /// The bias of each column, (1, C).
    pub bias: Option<Tensor>,
    /// Added to the mean square (or the variance).
    pub eps: f32,
    /// The kind of normalisation.
    pub kind: NormKind,
}

/// Kinds of normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm: division by the root mean square (Zhang and Sennrich 2019, arXiv 1910.07467).
    Rms,
    /// Like [`NormKind::Rms`], with 1 + the stored weight, as in Gemma.
    RmsUnitOffset,
    /// LayerNorm: division by the standard deviation about the mean (Ba et al. 2016, arXiv 1607.06450).
    Layer,
}

impl Norm {
    /// RMSNorm.
    pub fn rms(weight: Tensor, eps: f32) -> Norm {
        Norm { weight, bias: None, eps, kind: NormKind::Rms }
    }

    /// The normalisation that a product computes itself, if it can: only in the unrolled kernels for CPUs, where a
    /// launch costs more than the sums of squares.
    pub(super) fn fused(&self, r: &Recorder) -> Option<FusedNorm> {
        let plain = self.kind == NormKind::Rms && self.bias.is_none();
        let unrolled = matches!(r.tuning().products, Products::Unrolled(_));
        (plain && unrolled).then_some(FusedNorm { weight: self.weight, eps: self.eps })
    }
}

/// Groups of a row's columns, each normalised separately.
#[derive(Clone, Copy, Debug)]
struct Columns {
    /// The first column.
    first: usize,
    /// The number of groups.
    groups: usize,
    /// Columns per group.
    width: usize,
}

/// The tensors that the backward pass needs.
#[derive(Clone, Copy)]
pub(super) struct Moments {
    /// 1 / sqrt(mean((x - mean)²) + eps), (N, groups).
    pub inverse: Tensor,
    /// The means, for [`NormKind::Layer`].
    mean: Option<Tensor>,
}

/// Normalises each row.
///   x (N, C)  ->  y (N, C)
pub fn norm(r: &mut Recorder, x: Tensor, norm: &Norm) -> Result<Tensor> {
    normalise(r, x, &[(Columns { first: 0, groups: 1, width: x.cols }, *norm)])
}

/// Normalises groups of columns, such as heads, separately; the other columns are copied. Each part is its first
/// column, its number of groups, and their norm; a group is as wide as the norm's weight.
///   x (N, C)  ->  y (N, C)
pub fn head_norm(r: &mut Recorder, x: Tensor, parts: &[(usize, usize, Norm)]) -> Result<Tensor> {
    let part = |(first, groups, norm): &(usize, usize, Norm)| {
        (Columns { first: *first, groups: *groups, width: norm.weight.cols }, *norm)
    };
    normalise(r, x, &parts.iter().map(part).collect::<Vec<_>>())
}

fn normalise(r: &mut Recorder, x: Tensor, parts: &[(Columns, Norm)]) -> Result<Tensor> {
    let y = r.tensor("norm", x.rows, x.cols);
    let mut outputs = vec![y];
    let mut moments = Vec::new();
    for (columns, norm) in parts {
        let m = launch_forward(r, x, *columns, norm, y);
        outputs.extend([Some(m.inverse), m.mean].into_iter().flatten());
        moments.push(m);
    }
    let rest = gaps(parts, x.cols);
    for (first, cols) in &rest {
        copy(r, x, y, *first, *cols, false);
    }
    let parts = parts.to_vec();
    r.rule(&outputs, move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        let dx = input_target(r, x);
        for ((columns, norm), m) in parts.iter().zip(&moments) {
            launch_backward(r, dy, x, *columns, norm, *m, dx);
        }
        for (first, cols) in &rest {
            copy(r, dy, dx.tensor, *first, *cols, dx.accumulate == Accumulate::Add);
        }
        Ok(())
    });
    Ok(y)
}

/// Returns the columns that belong to no part: the first and the number.
fn gaps(parts: &[(Columns, Norm)], cols: usize) -> Vec<(usize, usize)> {
    let mut taken: Vec<_> = parts.iter().map(|(c, _)| (c.first, c.first + c.groups * c.width)).collect();
    taken.sort();
    let ends = [0].into_iter().chain(taken.iter().map(|t| t.1));
    let firsts = taken.iter().map(|t| t.0).chain([cols]);
    ends.zip(firsts).filter(|(end, first)| end < first).map(|(end, first)| (end, first - end)).collect()
}

/// Where the gradient of x is written. If it is not needed, the launch still computes those of weight and bias.
fn input_target(r: &mut Recorder, x: Tensor) -> GradientTarget {
    r.gradient_target(x).unwrap_or_else(|| GradientTarget {
        tensor: r.tensor("unused", x.rows, x.cols),
        accumulate: Accumulate::Set,
    })
}

/// From this number of columns, a whole workgroup processes a group. Below, one invocation per group needs no barrier,
/// which is expensive on a CPU; a GPU reads with neighbouring invocations.
fn wide_from(r: &Recorder) -> usize {
    if r.tuning().kind() == DeviceKind::Gpu { 64 } else { 512 }
}

const LANES: u32 = 64;

constants! {
    struct NormForward {
        wide: bool,
        layer: bool,
        unit_offset: bool,
        bias: bool,
    }
}

fn place(columns: Columns, x: Tensor) -> Vec<(&'static str, Word)> {
    vec![
        ("rows", x.rows.into()),
        ("groups", columns.groups.into()),
        ("cols", columns.width.into()),
        ("stride", x.cols.into()),
        ("first", columns.first.into()),
    ]
}

fn launch_forward(r: &mut Recorder, x: Tensor, columns: Columns, norm: &Norm, y: Tensor) -> Moments {
    let Columns { first, groups, width } = columns;
    assert_eq!((norm.weight.rows.max(), norm.weight.cols), (1, width), "norm: weight (1, {width})");
    let layer = norm.kind == NormKind::Layer;
    let inverse = r.tensor("norm inverse", x.rows, groups);
    let mean = layer.then(|| r.tensor("norm mean", x.rows, groups));
    let wide = width >= wide_from(r);
    let across = aligned(&[first, width, x.cols]);
    let mut args = vec![read("x", x).rows(across), read("weight", norm.weight).rows(across)];
    args.extend(norm.bias.map(|bias| read("bias", bias).rows(across)));
    args.extend([write("y", y).rows(across), write("inverse", inverse)]);
    args.extend(mean.map(|mean| write("mean", mean)));
    let mut params = place(columns, x);
    params.push(("eps", norm.eps.into()));
    r.launch(Launch {
        kernel: "norm_forward",
        constants: NormForward {
            wide,
            layer,
            unit_offset: norm.kind == NormKind::RmsUnitOffset,
            bias: norm.bias.is_some(),
        }
        .list(),
        params,
        args,
        groups: Groups::over(x.rows, if wide { 1 } else { LANES }).times(groups as u32),
        work: Work { flops: 4.0 * (groups * width) as f64, bytes: 8.0 * (groups * width) as f64 },
    });
    Moments { inverse, mean }
}

/// Groups of columns that a workgroup of the backward pass processes at a time.
fn backward_rows(r: &Recorder) -> u32 {
    if r.tuning().kind() == DeviceKind::Gpu { 4 } else { 16 }
}

constants! {
    struct NormBackward {
        /// Groups of columns that a workgroup processes at a time.
        rows: u32,
        layer: bool,
        unit_offset: bool,
        add: bool,
        to_weight: bool,
        to_bias: bool,
    }
}

/// Computes the gradients of x, weight and bias, where needed, from that of the normalised rows, which a product
/// computed internally.
pub(super) fn fused_backward(r: &mut Recorder, dy: Tensor, x: Tensor, norm: &Norm, inverse: Tensor) {
    let dx = input_target(r, x);
    let columns = Columns { first: 0, groups: 1, width: x.cols };
    launch_backward(r, dy, x, columns, norm, Moments { inverse, mean: None }, dx);
}

fn launch_backward(
    r: &mut Recorder,
    dy: Tensor,
    x: Tensor,
    columns: Columns,
    norm: &Norm,
    moments: Moments,
    dx: GradientTarget,
) {
    let Columns { first, groups, width } = columns;
    let rows = backward_rows(r);
    // Rows of x per workgroup, each workgroup writing one slice of the weight's gradient.
    let share = (rows / groups as u32).max(1);
    let slices = |r: &mut Recorder, of: Option<Tensor>| {
        let target = r.gradient_target(of?)?;
        let slices = x.rows.max().div_ceil(share) as usize;
        Some((r.tensor("d norm slices", slices, width), target))
    };
    let (to_weight, to_bias) = (slices(r, Some(norm.weight)), slices(r, norm.bias));
    let across = aligned(&[first, width, x.cols]);
    let mut args = vec![
        read("dy", dy).rows(across),
        read("x", x).rows(across),
        read("weight", norm.weight).rows(across),
        read("inverse", moments.inverse),
    ];
    args.extend(moments.mean.map(|mean| read("mean", mean)));
    args.push(write("dx", dx.tensor).rows(across));
    args.extend(to_weight.map(|(slices, _)| write("dweight", slices).rows(across)));
    args.extend(to_bias.map(|(slices, _)| write("dbias", slices).rows(across)));
    let mut params = place(columns, x);
    params.push(("share", share.into()));
    r.launch(Launch {
        kernel: "norm_backward",
        constants: NormBackward {
            rows,
            layer: norm.kind == NormKind::Layer,
            unit_offset: norm.kind == NormKind::RmsUnitOffset,
            add: dx.accumulate == Accumulate::Add,
            to_weight: to_weight.is_some(),
            to_bias: to_bias.is_some(),
        }
        .list(),
        params,
        args,
        groups: Groups::over(x.rows, share),
        work: Work { flops: 9.0 * (groups * width) as f64, bytes: 16.0 * (groups * width) as f64 },
    });
    let rows = x.rows;
    for (x, target) in to_weight.into_iter().chain(to_bias) {
        r.sum_slices(Slices { x, rows, share, len: width, target, first: 0 });
    }
}

constants! {
    struct CopyColumns {
        add: bool,
    }
}

fn copy(r: &mut Recorder, x: Tensor, y: Tensor, first: usize, cols: usize, add: bool) {
    r.launch(Launch {
        kernel: "copy_columns",
        constants: CopyColumns { add }.list(),
        params: vec![
            ("rows", x.rows.into()),
            ("cols", cols.into()),
            ("stride", x.cols.into()),
            ("first", first.into()),
        ],
        args: vec![read("x", x), write("y", y)],
        groups: Groups::over(x.rows, 1).times(cols.div_ceil(64) as u32),
        work: Work { flops: 0.0, bytes: 8.0 * cols as f64 },
    });
}
