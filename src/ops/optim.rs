//! Gradient clipping and the steps of the optimisers, in place. None of them has a gradient.

use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Groups, Launch, Recorder, Tensor, Word, Work, read, write};
use crate::ops::product::aligned;
use crate::reference;

/// The scalar of [`crate::gpu::Live`] that holds the learning rate.
pub const LEARNING_RATE: usize = 0;
/// The scalar with 1 / (1 - β1^step), for [`adamw`].
pub const INVERSE_BIAS_CORRECTION_1: usize = 1;
/// The scalar with 1 / (1 - β2^step), for [`adamw`].
pub const INVERSE_BIAS_CORRECTION_2: usize = 2;
/// The scalar with β2 = 1 - step^-0.8, for [`adafactor`]. At step 1 it is 0, but the state must still contain finite
/// numbers.
pub const ADAFACTOR_BETA2: usize = 3;

/// AdamW's constants. The values that change per step are scalars of the replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Weight decay: the fraction of a weight removed per step, times the learning rate.
    pub weight_decay: f32,
}

/// Adafactor's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    /// Added to the squared gradient.
    pub epsilon: f32,
    /// The largest root mean square of an update, before the learning rate.
    pub clip_threshold: f32,
    /// Weight decay: the fraction of a weight removed per step, times the learning rate.
    pub weight_decay: f32,
}

impl Default for Adafactor {
    /// The constants of the paper, without weight decay.
    fn default() -> Adafactor {
        Adafactor {
            epsilon: reference::ADAFACTOR_EPS as f32,
            clip_threshold: reference::ADAFACTOR_CLIP_THRESHOLD as f32,
            weight_decay: 0.0,
        }
    }
}

/// Adafactor's running mean of the squared gradient.
#[derive(Clone, Copy, Debug)]
pub enum AdafactorState {
    /// For a matrix (rows, cols), factored.
    Matrix {
        /// Means of its rows (rows, 1).
        row: Tensor,
        /// Means of its columns (1, cols).
        col: Tensor,
    },
    /// For any shape, per element.
    Vector {
        /// Shaped as the weights.
        v: Tensor,
    },
}

/// The number of elements that justifies a workgroup.
const MIN_SHARE: usize = 4096;
/// The number of workgroups that fills any GPU: with more elements, each gets a larger share.
const MAX_GROUPS: usize = 2048;
/// Elements that the lanes of a workgroup process at a time.
const WORKGROUP_ELEMENTS: usize = 256;
/// The number of rows that justifies a slice of a column, and the most slices.
const SLICE_ROWS: usize = 64;
const MAX_SLICES: usize = 256;

pub(super) fn len(t: Tensor) -> usize {
    t.rows.max() as usize * t.cols
}

/// Returns the elements per workgroup for a tensor of `len` elements.
pub(super) fn share(len: usize) -> usize {
    len.div_ceil(MAX_GROUPS).max(MIN_SHARE).next_multiple_of(WORKGROUP_ELEMENTS)
}

/// The norm of all gradients together, and the factor derived from it: [norm, factor that clips to `max_norm`, 1, 0],
/// or zeros if the norm is not finite. A `max_norm` of 0 means no clipping.
///   gradients: any shapes  ->  (1, 4)
pub fn global_norm(r: &mut Recorder, gradients: &[Tensor], max_norm: f32) -> Result<Tensor> {
    let groups: Vec<usize> = gradients.iter().map(|g| len(*g).div_ceil(share(len(*g)))).collect();
    let total = groups.iter().sum::<usize>();
    let partials = r.tensor("sums of squares", total, 1);
    let norm = r.tensor("global_norm", 1, 4);
    let mut first = 0;
    for (g, groups) in gradients.iter().zip(groups) {
        let (len, share) = (len(*g), share(len(*g)));
        r.launch_detached(Launch {
            kernel: "sum_squares",
            constants: vec![],
            params: vec![("len", len.into()), ("share", share.into()), ("first", first.into())],
            args: vec![read("x", *g).rows(aligned(&[len])), write("partials", partials)],
            groups: Groups::over(len, share as u32),
            work: Work { flops: 2.0, bytes: 4.0 },
        });
        first += groups;
    }
    r.launch_detached(Launch {
        kernel: "global_norm",
        constants: vec![],
        params: vec![("len", total.into()), ("max_norm", max_norm.into())],
        args: vec![read("partials", partials), write("norm", norm).vec4()],
        groups: Groups::over(1, 1),
        work: Work { flops: total as f64, bytes: 4.0 * total as f64 },
    });
    Ok(norm)
}

/// A step of AdamW, like `reference::adamw_step`, on tensors in regions; does nothing if `norm`, from [`global_norm`],
/// is not finite. Reads the scalars [`LEARNING_RATE`], [`INVERSE_BIAS_CORRECTION_1`] and [`INVERSE_BIAS_CORRECTION_2`].
///   w, g, m, v: of one shape  norm (1, 4)  ->  w, m, v updated
pub fn adamw(
    r: &mut Recorder,
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    norm: Tensor,
    settings: AdamW,
) -> Result<()> {
    let len = len(w);
    assert!([g, m, v].iter().all(|t| self::len(*t) == len), "adamw");
    let (share, fours) = (share(len), aligned(&[len]));
    let AdamW { beta1, beta2, epsilon, weight_decay } = settings;
    r.launch_detached(Launch {
        kernel: "adamw",
        constants: vec![],
        params: vec![
            ("len", len.into()),
            ("share", share.into()),
            ("beta1", beta1.into()),
            ("beta2", beta2.into()),
            ("epsilon", epsilon.into()),
            ("decay", weight_decay.into()),
        ],
        args: vec![
            read("g", g).rows(fours),
            read("norm", norm).vec4(),
            write("w", w).rows(fours),
            write("m", m).rows(fours),
            write("v", v).rows(fours),
        ],
        groups: Groups::over(len, share as u32),
        work: Work { flops: 15.0, bytes: 28.0 },
    });
    Ok(())
}

constants! {
    struct AdafactorUpdate {
        /// Whether the state consists of row and column means.
        matrix: bool,
        /// Whether to apply the step; otherwise computes the partial sums of the update's squares.
        apply: bool,
    }
}

/// A step of Adafactor, like `reference::adafactor_step`, on tensors in regions; does nothing if `norm`, from
/// [`global_norm`], is not finite. Reads the scalars [`LEARNING_RATE`] and [`ADAFACTOR_BETA2`].
///   w, g: of one shape  state  norm (1, 4)  ->  w, state updated
pub fn adafactor(
    r: &mut Recorder,
    w: Tensor,
    g: Tensor,
    state: AdafactorState,
    norm: Tensor,
    settings: Adafactor,
) -> Result<()> {
    assert_eq!((w.rows, w.cols), (g.rows, g.cols), "adafactor");
    let Adafactor { epsilon, clip_threshold, weight_decay } = settings;
    let matrix = matches!(state, AdafactorState::Matrix { .. });
    let (rows, cols) = if matrix { (w.rows.max() as usize, w.cols) } else { (1, len(w)) };
    let fours = aligned(&[cols]);
    let state = match state {
        AdafactorState::Matrix { row, col } => {
            let mean = adafactor_means(r, g, row, col, norm, epsilon);
            vec![read("row", row), read("col", col).rows(fours), read("row_mean", mean)]
        }
        AdafactorState::Vector { v } => {
            assert_eq!(len(v), cols, "adafactor: v");
            vec![write("v", v).rows(fours)]
        }
    };
    let quads = rows * cols.div_ceil(4);
    let share = share(4 * quads) / 4;
    let groups = quads.div_ceil(share);
    let partials = r.tensor("squares of the update", groups, 1);
    for apply in [false, true] {
        let mut params: Vec<(&str, Word)> =
            vec![("rows", rows.into()), ("cols", cols.into()), ("share", share.into())];
        match apply {
            true => params.extend([
                ("groups", Word::from(groups)),
                ("threshold", clip_threshold.into()),
                ("decay", weight_decay.into()),
            ]),
            false => params.extend((!matrix).then(|| ("epsilon", epsilon.into()))),
        }
        let mut args = vec![read("g", g).rows(fours), read("norm", norm).vec4()];
        args.extend(&state);
        args.push(write("partials", partials));
        args.extend(apply.then(|| write("w", w).rows(fours)));
        r.launch_detached(Launch {
            kernel: "adafactor_update",
            constants: AdafactorUpdate { matrix, apply }.list(),
            params,
            args,
            groups: Groups::over(quads, share as u32),
            work: Work { flops: 48.0, bytes: 48.0 },
        });
    }
    Ok(())
}

/// Updates a matrix's row and column means; returns the mean (1, 1) of the row means.
fn adafactor_means(
    r: &mut Recorder,
    g: Tensor,
    row: Tensor,
    col: Tensor,
    norm: Tensor,
    epsilon: f32,
) -> Tensor {
    let (rows, cols) = (g.rows.max() as usize, g.cols);
    assert_eq!((len(row), len(col)), (rows, cols), "adafactor: row and col");
    let fours = aligned(&[cols]);
    let slices = rows.div_ceil(SLICE_ROWS).min(MAX_SLICES);
    let partials = r.tensor("adafactor_cols", slices, cols);
    let mean = r.tensor("mean of the rows", 1, 1);
    r.launch_detached(Launch {
        kernel: "adafactor_rows",
        constants: vec![],
        params: vec![("rows", rows.into()), ("cols", cols.into()), ("epsilon", epsilon.into())],
        args: vec![read("g", g).rows(fours), read("norm", norm).vec4(), write("row", row)],
        groups: Groups::over(rows, 16),
        work: Work { flops: 2.0 * cols as f64, bytes: 4.0 * cols as f64 },
    });
    r.launch_detached(Launch {
        kernel: "adafactor_cols",
        constants: vec![],
        params: vec![("rows", rows.into()), ("cols", cols.into()), ("slices", slices.into())],
        args: vec![read("g", g).rows(fours), write("partials", partials).rows(fours)],
        groups: Groups::over(cols, 4 * 64).times(slices as u32),
        work: Work { flops: 2.0 * rows as f64, bytes: 4.0 * rows as f64 },
    });
    r.launch_detached(Launch {
        kernel: "adafactor_moments",
        constants: vec![],
        params: vec![
            ("rows", rows.into()),
            ("cols", cols.into()),
            ("slices", slices.into()),
            ("epsilon", epsilon.into()),
        ],
        args: vec![
            read("partials", partials),
            read("norm", norm).vec4(),
            // Only read, but it may share a buffer with `col`, and a buffer can have only one access mode per launch.
            write("row", row),
            write("col", col),
            write("row_mean", mean),
        ],
        groups: Groups::over(cols, 64),
        work: Work { flops: slices as f64, bytes: 4.0 * slices as f64 },
    });
    mean
}
