//! Training loops.

pub mod options;
pub mod order;
pub mod pair_step;
pub mod progress;
pub mod rows;
pub mod run_dir;
pub mod schedule;
pub mod session;
pub mod sft_step;
