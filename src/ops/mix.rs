//! Weights that track other weights (a moving average), in place.

use super::optim::{len as length, share};
use crate::gpu::{Groups, Launch, Recorder, Tensor, Work, read, write};
use crate::ops::product::aligned;

/// y = amount x + (1 - amount) y, on tensors that live in regions. No gradient flows through it.
///   x, y: of one shape  ->  y updated
pub fn mix(r: &mut Recorder, x: Tensor, y: Tensor, amount: f32) {
    let len = length(x);
    assert_eq!(length(y), len, "mix");
    let (share, fours) = (share(len), aligned(&[len]));
    let rest = (1.0 - f64::from(amount)) as f32;
    r.launch_detached(Launch {
        kernel: "mix",
        constants: vec![],
        params: vec![
            ("len", len.into()),
            ("share", share.into()),
            ("amount", amount.into()),
            ("rest", rest.into()),
        ],
        args: vec![read("x", x).rows(fours), write("y", y).rows(fours)],
        groups: Groups::over(len, share as u32),
        work: Work { flops: 3.0, bytes: 12.0 },
    });
}
