//! Chooses by measurement how a device computes: kernel variants that are correct and fast, and arithmetic that is
//! correct.

mod arithmetic;
mod cache;
mod products;
mod staged;
mod tune;
mod unrolled;

pub use arithmetic::check_arithmetic;
pub use tune::{Tuned, tune};
