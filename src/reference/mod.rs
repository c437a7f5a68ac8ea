//! Every op in plain `f64` Rust: the oracle that the GPU kernels are compared with.
//!
//! A function has its kernel's name and is written to be checked by eye, not to be fast. Tensors are row-major slices;
//! results are new vectors (`=`, never `+=`). The gradient of a value is named `d` + the name of the value. Every
//! gradient rule here is itself tested against central differences.
//!
//! Letters: N tokens (rows), S sequences, T target rows, C hidden, H heads, K kv heads, D head size,
//! I and O the inputs and outputs of a matrix product, V vocabulary, R LoRA rank.
//!
//! Nothing here returns an error: a wrong shape is a bug of the caller and fails an assertion.
#![allow(
    clippy::too_many_arguments,
    reason = "slices and explicit dimensions, in the order of the kernel's bindings"
)]

mod activation;
mod add;
mod attention;
mod gather;
mod linear;
mod logprob;
mod mix;
mod norm;
mod optim;
mod policy_gradient;
mod preference;
mod random;
mod rotary;
mod sampling;
mod segment;
#[cfg(test)]
mod testing;

pub use activation::*;
pub use add::*;
pub use attention::*;
pub use gather::*;
pub use linear::*;
pub use logprob::*;
pub use mix::*;
pub use norm::*;
pub use optim::*;
pub use policy_gradient::*;
pub use preference::*;
pub use random::*;
pub use rotary::*;
pub use sampling::*;
pub use segment::*;

/// Σ x_i y_i.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "the two sides of a dot product differ in length");
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// y += scale x.
fn add_scaled(y: &mut [f64], scale: f64, x: &[f64]) {
    assert_eq!(x.len(), y.len(), "the two sides of a sum differ in length");
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// Returns the range of row `n` in a row-major tensor of `c` columns.
fn row(n: usize, c: usize) -> std::ops::Range<usize> {
    n * c..(n + 1) * c
}

/// Asserts that tensor `name` has the number of elements of its shape.
#[track_caller]
fn check<T>(name: &str, tensor: &[T], shape: &[usize]) {
    let expected: usize = shape.iter().product();
    assert_eq!(tensor.len(), expected, "{name} should have shape {shape:?}");
}
