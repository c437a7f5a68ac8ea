//! A kernel of pure arithmetic, to measure the GPU's peak rate.

use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Groups, Launch, Recorder, Tensor, Work, read, write};

constants! {
    struct MultiplyAddCeiling {
        rounds: u32,
    }
}

/// Returns y (N, 1) of the kernel: `rounds` steps of 8 chains of 4-element vectors.
pub(crate) fn multiply_add(r: &mut Recorder, x: Tensor, rounds: u32) -> Tensor {
    let y = r.tensor("multiply_add", x.rows, 1);
    let len = x.rows.max();
    r.launch(Launch {
        kernel: "multiply_add_ceiling",
        constants: MultiplyAddCeiling { rounds }.list(),
        params: vec![("len", len.into())],
        args: vec![read("x", x), write("y", y)],
        groups: Groups::over(x.rows, 64),
        work: Work { flops: 64.0 * rounds as f64, bytes: 8.0 },
    });
    y
}
