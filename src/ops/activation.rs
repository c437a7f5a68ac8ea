//! Activations, plain and gated.

use super::elements;
use super::product::aligned;
use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Accumulate, Launch, Recorder, Tensor, Work, read, write};

/// An elementwise activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x σ(x).
    Silu,
    /// x Φ(x), with the tanh approximation of Φ (Hendrycks and Gimpel 2016, arXiv 1606.08415).
    GeluTanh,
    /// x Φ(x), with Φ from the error function.
    Gelu,
    /// max(x, 0)².
    ReluSquared,
}

impl Activation {
    /// The constant `ACTIVATION` of kernels that include `shared/activation.wgsl`.
    pub(super) fn code(self) -> u32 {
        match self {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
            Activation::Gelu => 2,
            Activation::ReluSquared => 3,
        }
    }
}

constants! {
    struct ActivationForward {
        activation: u32,
        gated: bool,
    }
}

constants! {
    struct ActivationBackward {
        activation: u32,
        gated: bool,
        add: bool,
    }
}

/// y = activation(x).
///   x (N, F)  ->  y (N, F)
pub fn activation(r: &mut Recorder, x: Tensor, activation: Activation) -> Result<Tensor> {
    record(r, x, activation, false)
}

/// y = activation(gate) · up (Shazeer 2020, arXiv 2002.05202).
///   x (N, 2 F): gate, up  ->  y (N, F)
pub fn gated_activation(r: &mut Recorder, x: Tensor, activation: Activation) -> Result<Tensor> {
    record(r, x, activation, true)
}

fn record(r: &mut Recorder, x: Tensor, activation: Activation, gated: bool) -> Result<Tensor> {
    let cols = if gated { x.cols / 2 } else { x.cols };
    let (across, code) = (aligned(&[cols]), activation.code());
    let y = r.tensor("activation", x.rows, cols);
    r.launch(Launch {
        kernel: "activation_forward",
        constants: ActivationForward { activation: code, gated }.list(),
        params: vec![("rows", x.rows.into()), ("cols", cols.into())],
        args: vec![read("x", x).rows(across), write("y", y).rows(across)],
        groups: elements(x.rows, cols),
        work: Work { flops: 8.0 * cols as f64, bytes: 4.0 * (x.cols + cols) as f64 },
    });
    r.rule(&[y], move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        let Some(dx) = r.gradient_target(x) else { return Ok(()) };
        let add = dx.accumulate == Accumulate::Add;
        r.launch(Launch {
            kernel: "activation_backward",
            constants: ActivationBackward { activation: code, gated, add }.list(),
            params: vec![("rows", x.rows.into()), ("cols", cols.into())],
            args: vec![
                read("dy", dy).rows(across),
                read("x", x).rows(across),
                write("dx", dx.tensor).rows(across),
            ],
            groups: elements(x.rows, cols),
            work: Work { flops: 12.0 * cols as f64, bytes: 8.0 * x.cols as f64 },
        });
        Ok(())
    });
    Ok(y)
}
