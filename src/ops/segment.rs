//! Sums over segments of rows: token log-probabilities into sequence log-probabilities.

use crate::error::Result;
use crate::gpu::shader::{Constant, Constants, constants};
use crate::gpu::{Accumulate, Arg, Dim, Groups, Launch, Recorder, Tensor, Work, read, write};

/// y_s = Σ x_t over offsets_s <= t < offsets_{s+1}, for the first `segments` (S) segments. The offsets increase from 0
/// to T; there may be more than S + 1 of them.
///   x (T, 1)  offsets (S + 1, 1) u32  ->  y (S, 1)
pub fn segment_sum(r: &mut Recorder, x: Tensor, offsets: Tensor, segments: impl Into<Dim>) -> Result<Tensor> {
    let segments = segments.into();
    assert_eq!((x.cols, offsets.cols), (1, 1), "segment_sum");
    assert!(offsets.rows.max() > segments.max(), "segment_sum: {:?} offsets", offsets.rows);
    let y = r.tensor("segment_sum", segments, 1);
    launch(r, "segment_sum", vec![], segments, [read("x", x), read("offsets", offsets), write("y", y)], x);
    r.rule(&[y], move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        if let Some(dx) = r.gradient_target(x) {
            let constants = SegmentSumBackward { add: dx.accumulate == Accumulate::Add }.list();
            let args = [read("dy", dy), read("offsets", offsets), write("dx", dx.tensor)];
            launch(r, "segment_sum_backward", constants, segments, args, x);
        }
        Ok(())
    });
    Ok(y)
}

constants! {
    struct SegmentSumBackward {
        add: bool,
    }
}

fn launch(
    r: &mut Recorder,
    kernel: &'static str,
    constants: Vec<(String, Constant)>,
    segments: Dim,
    args: [Arg; 3],
    x: Tensor,
) {
    let mean_rows = x.rows.max() as f64 / segments.max() as f64;
    r.launch(Launch {
        kernel,
        constants,
        params: vec![("rows", x.rows.into()), ("segments", segments.into())],
        args: args.to_vec(),
        groups: Groups::over(segments, 64),
        work: Work { flops: mean_rows, bytes: 4.0 * mean_rows },
    });
}
