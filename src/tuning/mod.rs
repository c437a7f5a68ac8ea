//! Choosing how a device computes, by trying: kernels' variants that are right and fast, and an arithmetic that can be trusted.

mod arithmetic;
mod cache;
mod products;
mod staged;
mod tune;
mod unrolled;

pub use arithmetic::check_arithmetic;
pub use tune::{Tuned, tune};
