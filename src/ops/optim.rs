//! Gradient clipping and the steps of the optimisers, in place. No gradient flows through any of it.

use super::case::{Case, Input};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Groups, Launch, Recorder, Tensor, Word, Work};
use crate::reference;

/// The scalar of [`crate::gpu::Live`] that holds the learning rate.
pub const LEARNING_RATE: usize = 0;
/// The scalar with 1 / (1 - β1^step), for [`adamw`].
pub const INVERSE_BIAS_CORRECTION_1: usize = 1;
/// The scalar with 1 / (1 - β2^step), for [`adamw`].
pub const INVERSE_BIAS_CORRECTION_2: usize = 2;
/// The scalar with β2 = 1 - step^-0.8, for [`adafactor`]. At step 1 it is 0: the state must hold numbers all the same.
pub const ADAFACTOR_BETA2: usize = 3;

/// AdamW's constants. The rest changes from step to step and comes with the replay's scalars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of the gradient.
    pub beta1: f32,
    /// Decay of the mean of the squared gradient.
    pub beta2: f32,
    /// Added to the root of the mean of the squared gradient.
    pub epsilon: f32,
    /// The share of a weight that a step takes away, times the learning rate.
    pub weight_decay: f32,
}

/// Adafactor's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    /// Added to the squared gradient.
    pub epsilon: f32,
    /// The largest root mean square of an update, before the learning rate.
    pub clip_threshold: f32,
    /// The share of a weight that a step takes away, times the learning rate.
    pub weight_decay: f32,
}

impl Default for Adafactor {
    /// Those of the paper, without weight decay.
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
    /// Of a matrix (rows, cols).
    Matrix {
        /// Means of its rows (rows, 1).
        row: Tensor,
        /// Means of its columns (1, cols).
        col: Tensor,
    },
    /// Of anything, element by element.
    Vector {
        /// As the weights.
        v: Tensor,
    },
}

/// Elements that make a workgroup worth its launch.
const MIN_SHARE: usize = 4096;
/// Workgroups that fill any GPU: more elements than these make larger shares.
const MAX_GROUPS: usize = 2048;
/// Rows that make a slice of a column worth its launch, and slices at most.
const SLICE_ROWS: usize = 128;
const MAX_SLICES: usize = 64;

fn len(t: Tensor) -> usize {
    t.rows.max() as usize * t.cols
}

/// Elements of a workgroup for a tensor of `len`.
fn share(len: usize) -> usize {
    len.div_ceil(MAX_GROUPS).max(MIN_SHARE)
}

/// The norm of all gradients laid end to end, and what follows from it: [norm, factor that brings it down to
/// `max_norm`, 1, 0], or zeros where the norm is not finite. A `max_norm` of 0 means no clipping.
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
            kernel: KernelKey { name: "sum_squares", constants: vec![] },
            params: vec![len.into(), share.into(), first.into()],
            args: vec![(*g, Access::Read), (partials, Access::Write)],
            groups: Groups::over(len, share as u32),
            work: Work { flops: 2.0, bytes: 4.0 },
        });
        first += groups;
    }
    r.launch_detached(Launch {
        kernel: KernelKey { name: "global_norm", constants: vec![] },
        params: vec![total.into(), Word::F32(max_norm)],
        args: vec![(partials, Access::Read), (norm, Access::Write)],
        groups: Groups::over(1, 1),
        work: Work { flops: total as f64, bytes: 4.0 * total as f64 },
    });
    Ok(norm)
}

/// A step of AdamW, as `reference::adamw_step`, on tensors that live in regions; nothing changes where `norm`, of
/// [`global_norm`], is not finite. Reads the scalars [`LEARNING_RATE`], [`INVERSE_BIAS_CORRECTION_1`] and
/// [`INVERSE_BIAS_CORRECTION_2`].
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
    let share = share(len);
    let AdamW { beta1, beta2, epsilon, weight_decay } = settings;
    let floats = [beta1, beta2, epsilon, weight_decay].map(Word::F32);
    let writes = [w, m, v].map(|t| (t, Access::Write));
    r.launch_detached(Launch {
        kernel: KernelKey { name: "adamw", constants: vec![] },
        params: [len.into(), share.into()].into_iter().chain(floats).collect(),
        args: [(g, Access::Read), (norm, Access::Read)].into_iter().chain(writes).collect(),
        groups: Groups::over(len, share as u32),
        work: Work { flops: 15.0, bytes: 28.0 },
    });
    Ok(())
}

/// A step of Adafactor, as `reference::adafactor_step`, on tensors that live in regions; nothing changes where `norm`,
/// of [`global_norm`], is not finite. Reads the scalars [`LEARNING_RATE`] and [`ADAFACTOR_BETA2`].
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
    let state = match state {
        AdafactorState::Matrix { row, col } => {
            let mean = adafactor_means(r, g, row, col, norm, epsilon);
            vec![(row, Access::Read), (col, Access::Read), (mean, Access::Read)]
        }
        AdafactorState::Vector { v } => {
            assert_eq!(len(v), len(w), "adafactor: v");
            vec![(v, Access::Write)]
        }
    };
    let len = len(w);
    let share = share(len);
    let groups = len.div_ceil(share);
    let partials = r.tensor("squares of the update", groups, 1);
    let matrix = state.len() == 3;
    for apply in [false, true] {
        let written = [Some(partials), apply.then_some(w)].into_iter().flatten();
        let reads = [g, norm].map(|t| (t, Access::Read));
        r.launch_detached(Launch {
            kernel: KernelKey {
                name: "adafactor_update",
                constants: vec![
                    ("MATRIX", matrix as u32),
                    ("VECTOR", !matrix as u32),
                    ("APPLY", apply as u32),
                ],
            },
            params: vec![
                len.into(),
                share.into(),
                w.cols.into(),
                groups.into(),
                Word::F32(epsilon),
                Word::F32(clip_threshold),
                Word::F32(weight_decay),
            ],
            args: reads
                .into_iter()
                .chain(state.iter().copied())
                .chain(written.map(|t| (t, Access::Write)))
                .collect(),
            groups: Groups::over(len, share as u32),
            work: Work { flops: 12.0, bytes: 12.0 },
        });
    }
    Ok(())
}

/// Updates a matrix's row and column means; gives the mean (1, 1) of the former.
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
    let slices = rows.div_ceil(SLICE_ROWS).min(MAX_SLICES);
    let partials = r.tensor("adafactor_cols", slices, cols);
    let mean = r.tensor("mean of the rows", 1, 1);
    r.launch_detached(Launch {
        kernel: KernelKey { name: "adafactor_rows", constants: vec![] },
        params: vec![rows.into(), cols.into(), Word::F32(epsilon)],
        args: vec![(g, Access::Read), (norm, Access::Read), (row, Access::Write)],
        groups: Groups::over(rows, 16),
        work: Work { flops: 2.0 * cols as f64, bytes: 4.0 * cols as f64 },
    });
    r.launch_detached(Launch {
        kernel: KernelKey { name: "adafactor_cols", constants: vec![] },
        params: vec![rows.into(), cols.into(), slices.into()],
        args: vec![(g, Access::Read), (partials, Access::Write)],
        groups: Groups::over(cols, 64).times(slices as u32),
        work: Work { flops: 2.0 * rows as f64, bytes: 4.0 * rows as f64 },
    });
    r.launch_detached(Launch {
        kernel: KernelKey { name: "adafactor_moments", constants: vec![] },
        params: vec![rows.into(), cols.into(), slices.into(), Word::F32(epsilon)],
        args: vec![
            (partials, Access::Read),
            (norm, Access::Read),
            (row, Access::Write),
            (col, Access::Write),
            (mean, Access::Write),
        ],
        groups: Groups::over(cols, 64),
        work: Work { flops: slices as f64, bytes: 4.0 * slices as f64 },
    });
    mean
}

pub(super) fn cases() -> Vec<Case> {
    [norm_cases(), adamw_cases(), adafactor_cases()].into_iter().flatten().collect()
}

/// The factor that clips `g` to `max_norm`, 0 where it is not finite.
fn scale_of(g: &[f64], max_norm: f64) -> f64 {
    let norm = reference::global_norm(g);
    if norm.is_finite() { reference::clip_scale(norm, max_norm) } else { 0.0 }
}

fn norm_cases() -> Vec<Case> {
    // Lengths of the gradients, and where one holds something that is not finite.
    let shapes: [(&[usize], f32, Option<f32>); 7] = [
        (&[1], 0.0, None),
        (&[7, 64, 4095], 1.0, None),
        (&[4097, 1, 300_001], 1e6, None),
        (&[63, 65], 0.5, Some(f32::INFINITY)),
        (&[63, 65], 0.5, Some(f32::NEG_INFINITY)),
        (&[63, 65], 0.0, Some(f32::NAN)),
        // Each is finite, the sum of their squares is not.
        (&[63, 65], 1.0, Some(1e20)),
    ];
    let case = |(lengths, max_norm, bad): (&[usize], f32, Option<f32>)| {
        let mut inputs: Vec<Input> =
            lengths.iter().enumerate().map(|(i, n)| Input::normal(i as u32, *n, 1, 3.0)).collect();
        if let Some(bad) = bad {
            let n = lengths[0];
            inputs[0] = Input::f32((0..n).map(|i| if i == n / 2 { bad } else { 0.5 }).collect(), 1, n);
        }
        Case::new(
            "global_norm",
            format!("{lengths:?} max {max_norm} with {bad:?}"),
            inputs,
            move |r, t| Ok(vec![global_norm(r, t, max_norm)?]),
            move |v| {
                let norm = reference::global_norm(&v.concat());
                match bad {
                    None => vec![vec![norm, reference::clip_scale(norm, max_norm.into()), 1.0, 0.0]],
                    Some(_) => vec![vec![0.0; 4]],
                }
            },
        )
    };
    shapes.into_iter().map(case).collect()
}

fn adamw_cases() -> Vec<Case> {
    let settings = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-4, weight_decay: 0.1 };
    let mut out = Vec::new();
    for (rows, cols, step, max_norm, bad) in
        [(1, 1, 1, 0.0, false), (61, 67, 3, 1.0, false), (512, 512, 1000, 0.0, false), (7, 13, 2, 1.0, true)]
    {
        let mut g = Input::normal(2, rows, cols, 1.0);
        if bad {
            g = Input::f32(vec![f32::NAN; rows * cols], rows, cols);
        }
        let v: Vec<f32> = (0..rows * cols).map(|i| 0.01 * (i % 31) as f32).collect();
        let inputs = vec![
            Input::normal(1, rows, cols, 1.0).watched(),
            g,
            Input::normal(3, rows, cols, 0.1),
            Input::f32(v, rows, cols),
        ];
        let corrections = [settings.beta1, settings.beta2].map(|b| 1.0 / (1.0 - f64::from(b).powi(step)));
        let case = Case::new(
            "adamw",
            format!("({rows}, {cols}) step {step} max norm {max_norm} bad {bad}"),
            inputs,
            move |r, t| {
                let norm = global_norm(r, &[t[1]], max_norm)?;
                adamw(r, t[0], t[1], t[2], t[3], norm, settings)?;
                Ok(vec![t[0], t[2], t[3]])
            },
            move |x| {
                if bad {
                    return vec![x[0].clone(), x[2].clone(), x[3].clone()];
                }
                let [beta1, beta2, eps, decay] =
                    [settings.beta1, settings.beta2, settings.epsilon, settings.weight_decay].map(f64::from);
                let scale = scale_of(&x[1], max_norm.into());
                let lr = f64::from(0.05f32);
                let new = reference::adamw_step(
                    &x[0],
                    &x[1],
                    &x[2],
                    &x[3],
                    step as u32,
                    lr,
                    beta1,
                    beta2,
                    eps,
                    decay,
                    scale,
                );
                vec![new.w, new.m, new.v]
            },
        );
        out.push(case.scalars(&[0.05, corrections[0] as f32, corrections[1] as f32]));
    }
    out
}

fn adafactor_cases() -> Vec<Case> {
    let settings = Adafactor { weight_decay: 0.1, ..Adafactor::default() };
    let mut out = Vec::new();
    for (rows, cols, step, max_norm, gradient, bad) in [
        (1, 1, 1, 0.0, 1.0, false),
        (13, 7, 1, 1.0, 1.0, false),
        (65, 63, 2, 0.0, 1e-12, false),
        (512, 172, 50, 1.0, 1e4, false),
        (17, 64, 3, 1.0, 1.0, true),
    ] {
        for matrix in [true, false] {
            let mut g = Input::normal(2, rows, cols, gradient);
            if bad {
                g = Input::f32(vec![f32::INFINITY; rows * cols], rows, cols);
            }
            let squares = |seed: usize, n: usize| -> Vec<f32> {
                (0..n).map(|i| gradient * gradient * (1.0 + (i * seed % 11) as f32)).collect()
            };
            let mut inputs = vec![Input::normal(1, rows, cols, 1.0).watched(), g];
            match matrix {
                true => inputs
                    .extend([Input::f32(squares(3, rows), rows, 1), Input::f32(squares(5, cols), 1, cols)]),
                false => inputs.push(Input::f32(squares(7, rows * cols), rows, cols)),
            }
            let beta2 = 1.0 - f64::from(step).powf(reference::ADAFACTOR_DECAY_RATE);
            let kind = if matrix { "matrix" } else { "vector" };
            let case = Case::new(
                "adafactor",
                format!("{kind} ({rows}, {cols}) step {step} g {gradient:e} bad {bad}"),
                inputs,
                move |r, t| {
                    let norm = global_norm(r, &[t[1]], max_norm)?;
                    let state = match matrix {
                        true => AdafactorState::Matrix { row: t[2], col: t[3] },
                        false => AdafactorState::Vector { v: t[2] },
                    };
                    adafactor(r, t[0], t[1], state, norm, settings)?;
                    Ok([&t[..1], &t[2..]].concat())
                },
                move |x| {
                    if bad {
                        return [&x[..1], &x[2..]].concat();
                    }
                    let state = match matrix {
                        true => reference::AdafactorState::Matrix { row: x[2].clone(), col: x[3].clone() },
                        false => reference::AdafactorState::Vector { v: x[2].clone() },
                    };
                    let (lr, decay) = (f64::from(0.05f32), f64::from(settings.weight_decay));
                    let scale = scale_of(&x[1], max_norm.into());
                    let (w, state) =
                        reference::adafactor_step(&x[0], &x[1], &state, step as u32, lr, decay, scale);
                    match state {
                        reference::AdafactorState::Matrix { row, col } => vec![w, row, col],
                        reference::AdafactorState::Vector { v } => vec![w, v],
                    }
                },
            );
            out.push(case.scalars(&[0.05, 0.0, 0.0, beta2 as f32]));
        }
    }
    out
}
