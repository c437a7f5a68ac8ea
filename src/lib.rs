#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
// What tuning and benchmarks alone use: they wait for the GPU on their thread, and are not for a browser.
#![cfg_attr(target_arch = "wasm32", allow(dead_code, unused_imports))]

mod digest;
mod json_lines;
mod listeners;
mod lock;
mod panics;
#[cfg(feature = "http")]
mod redirects;
mod task;
pub mod unstable;

use unstable::*;

pub use error::{Error, Result};
pub use task::Task;
#[cfg(not(target_arch = "wasm32"))]
pub use task::{Wait, block_on};
/// The version of wgpu whose devices are shared.
pub use wgpu;
