//! Root-mean-square normalisation.

use super::accumulate;
use super::case::{Case, Input};
use super::linear::aligned;
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Accumulate, GradientTarget, Groups, Launch, Recorder, Slices, Tensor, Work};
use crate::reference;

/// Columns from which a whole workgroup shares a row. Below, one invocation a row needs no barrier.
const WIDE_COLS: usize = 512;
const LANES: u32 = 64;

/// y = x w / sqrt(mean(x²) + eps), each row by itself (Zhang and Sennrich 2019, arXiv 1910.07467).
///   x (N, C)  w (1, C)  ->  y (N, C)
pub fn rmsnorm(r: &mut Recorder, x: Tensor, w: Tensor, eps: f32) -> Result<Tensor> {
    assert_eq!((w.rows.max(), w.cols), (1, x.cols), "rmsnorm: w (1, C) for x (N, {})", x.cols);
    let y = r.tensor("rmsnorm", x.rows, x.cols);
    let inv = r.tensor("rmsnorm inv", x.rows, 1);
    let (lanes, groups) = rows(x);
    r.launch(Launch {
        kernel: KernelKey { name: "rmsnorm_forward", constants: lanes },
        params: vec![x.rows.into(), x.cols.into(), eps.into()],
        args: vec![(x, Access::Read), (w, Access::Read), (y, Access::Write), (inv, Access::Write)],
        groups,
        work: Work { flops: 4.0 * x.cols as f64, bytes: 8.0 * x.cols as f64 },
    });
    r.rule(&[y, inv], move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        backward(r, dy, x, w, inv);
        Ok(())
    });
    Ok(y)
}

/// The constants that choose how many invocations share a row, and the workgroups that this takes.
fn rows(x: Tensor) -> (Vec<(&'static str, u32)>, Groups) {
    let wide = x.cols >= WIDE_COLS;
    let lanes = if wide { LANES } else { 1 };
    (vec![("LANES", lanes), ("WIDE", wide as u32)], Groups::over(x.rows, LANES / lanes))
}

/// Rows of a workgroup of the backward pass: each gives one slice of the weight's gradient.
const BACKWARD_ROWS: u32 = 16;

/// The gradients of x and w from that of y = x w inv, where they are needed.
pub(super) fn backward(r: &mut Recorder, dy: Tensor, x: Tensor, w: Tensor, inv: Tensor) {
    let target = r.gradient_target(w);
    let partial = target.map(|target| {
        let slices = x.rows.max().div_ceil(BACKWARD_ROWS) as usize;
        (r.tensor("d gain slices", slices, x.cols), target)
    });
    // Without a gradient of x its launch still computes that of w.
    let dx = r.gradient_target(x).unwrap_or_else(|| GradientTarget {
        tensor: r.tensor("unused", x.rows, x.cols),
        accumulate: Accumulate::Set,
    });
    let reads = [dy, x, w, inv].map(|t| (t, Access::Read));
    let writes = [dx.tensor].into_iter().chain(partial.map(|(t, _)| t)).map(|t| (t, Access::Write));
    let constants = vec![
        ("ROWS", BACKWARD_ROWS),
        ("ALIGNED", aligned(&[x.cols]) as u32),
        ("ADD", accumulate(dx)),
        ("TO_WEIGHT", partial.is_some() as u32),
    ];
    r.launch(Launch {
        kernel: KernelKey { name: "rmsnorm_backward", constants },
        params: vec![x.rows.into(), x.cols.into()],
        args: reads.into_iter().chain(writes).collect(),
        groups: Groups::over(x.rows, BACKWARD_ROWS),
        work: Work { flops: 9.0 * x.cols as f64, bytes: 16.0 * x.cols as f64 },
    });
    if let Some((partial, target)) = partial {
        let len = x.cols;
        r.sum_slices_later(Slices { x: partial, rows: x.rows, share: BACKWARD_ROWS, len, target, first: 0 });
    }
}

pub(super) fn cases() -> Vec<Case> {
    // With one column the gradient is what eps leaves of it.
    const EPS: f32 = 1e-3;
    let mut out = Vec::new();
    // From 512 columns on there is a workgroup a row; 259 rows and more are summed in slices.
    for (n, c) in [(1, 1), (5, 7), (63, 65), (65, 64), (3, 512), (259, 521), (1, 2053), (2048, 64)] {
        let shape = format!("N {n} C {c}");
        let inputs = move || {
            let x = Input::normal(1, n, c, 1.0).live(0).watched();
            vec![x, Input::normal(2, 1, c, 1.0).watched(), Input::normal(3, n, c, 1.0).live(0)]
        };
        out.push(Case::new(
            "rmsnorm_forward",
            &shape,
            inputs(),
            |r, t| Ok(vec![rmsnorm(r, t[0], t[1], EPS)?]),
            |v| vec![reference::rmsnorm_forward(&v[0], &v[1], EPS as f64).0],
        ));
        // Twice over, so that the second gradients are added to the first.
        out.push(Case::new(
            "rmsnorm_backward",
            &shape,
            inputs(),
            |r, t| {
                let y = rmsnorm(r, t[0], t[1], EPS)?;
                let z = rmsnorm(r, t[0], t[1], EPS)?;
                let sum = super::residual_add(r, y, z)?;
                r.backward(&[(sum, t[2])])?;
                Ok([t[0], t[1]].iter().filter_map(|t| r.gradient(*t)).collect())
            },
            |v| {
                let (_, inv) = reference::rmsnorm_forward(&v[0], &v[1], EPS as f64);
                let (dx, dw) = reference::rmsnorm_backward(&v[0], &v[1], &inv, &v[2]);
                [dx, dw].map(|d| d.iter().map(|d| 2.0 * d).collect()).into()
            },
        ));
    }
    out
}
