//! Sums over runs of rows: token log-probabilities into sequence log-probabilities.

use super::accumulate;
use super::case::{Case, Input};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Dim, Groups, Launch, Recorder, Tensor, Work};
use crate::reference;

/// y_s = Σ x_t over offsets_s <= t < offsets_{s+1}, for the first `segments` (S) segments. The offsets rise from 0 to
/// T; there may be more of them than S + 1.
///   x (T, 1)  offsets (S + 1, 1) u32  ->  y (S, 1)
pub fn segment_sum(r: &mut Recorder, x: Tensor, offsets: Tensor, segments: impl Into<Dim>) -> Result<Tensor> {
    let segments = segments.into();
    assert_eq!((x.cols, offsets.cols), (1, 1), "segment_sum");
    assert!(offsets.rows.max() > segments.max(), "segment_sum: {:?} offsets", offsets.rows);
    let y = r.tensor("segment_sum", segments, 1);
    launch(r, "segment_sum", vec![], segments, &[x, offsets], y, x);
    r.rule(&[y], move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        if let Some(dx) = r.gradient_target(x) {
            let constants = vec![("ADD", accumulate(dx))];
            launch(r, "segment_sum_backward", constants, segments, &[dy, offsets], dx.tensor, x);
        }
        Ok(())
    });
    Ok(y)
}

fn launch(
    r: &mut Recorder,
    name: &'static str,
    constants: Vec<(&'static str, u32)>,
    segments: Dim,
    reads: &[Tensor; 2],
    y: Tensor,
    x: Tensor,
) {
    let mean_rows = x.rows.max() as f64 / segments.max() as f64;
    r.launch(Launch {
        kernel: KernelKey { name, constants },
        params: vec![x.rows.into(), segments.into()],
        args: reads.iter().map(|t| (*t, Access::Read)).chain([(y, Access::Write)]).collect(),
        groups: Groups::over(segments, 64),
        work: Work { flops: mean_rows, bytes: 4.0 * mean_rows },
    });
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // Lengths of the segments repeat these; some are empty.
    for (s, lengths) in [
        (1, vec![1]),
        (1, vec![131]),
        (7, vec![3, 0, 7]),
        (63, vec![2, 5]),
        (130, vec![1, 0, 9]),
        (32, vec![64]),
    ] {
        let lengths: Vec<u32> = (0..s).map(|i| lengths[i % lengths.len()]).collect();
        let ends = lengths.iter().scan(0, |end, n| {
            *end += n;
            Some(*end)
        });
        let offsets: Vec<u32> = [0].into_iter().chain(ends).collect();
        let t = offsets[s] as usize;
        let shape = format!("T {t} S {s}");
        let inputs = || {
            vec![
                Input::normal(1, t, 1, 1.0).live(0).watched(),
                Input::u32(offsets.clone(), s + 1, 1).live(2),
                Input::normal(2, s, 1, 1.0).live(1),
            ]
        };
        let at = offsets.clone();
        out.push(Case::new(
            "segment_sum",
            &shape,
            inputs(),
            |r, t| Ok(vec![segment_sum(r, t[0], t[1], t[2].rows)?]),
            move |v| vec![reference::segment_sum(&v[0], &at)],
        ));
        let at = offsets.clone();
        out.push(Case::new(
            "segment_sum_backward",
            &shape,
            inputs(),
            // Twice, so that the second gradient is added to the first.
            |r, t| {
                let y = segment_sum(r, t[0], t[1], t[2].rows)?;
                let z = segment_sum(r, t[0], t[1], t[2].rows)?;
                r.backward(&[(y, t[2]), (z, t[2])])?;
                Ok(r.gradient(t[0]).into_iter().collect())
            },
            move |v| {
                let dx = reference::segment_sum_backward(&v[2], &at);
                vec![reference::residual_add(&dx, &dx)]
            },
        ));
    }
    out
}
