//! Training: supervised, on given preferences, and online.

mod align;
mod dpo;
pub mod options;
pub mod order;
pub mod pair_step;
mod pair_trainer;
mod policy;
pub mod progress;
pub mod rows;
pub mod run_dir;
pub mod schedule;
mod session;
mod sft;
pub mod sft_step;

pub use align::AlignRun;
pub use dpo::DpoRun;
pub use options::{AlignOptions, DpoOptions, TrainOptions};
pub use policy::Policy;
pub use progress::{Observer, StepEvent};
pub use session::{Control, Sources};
pub use sft::SftRun;

/// Steps of a run over `rows` rows.
fn total_steps(options: &TrainOptions, rows: usize) -> usize {
    let batch = options.batch_size * options.accumulation;
    let epochs = (rows as f64 * options.epochs / batch as f64).ceil() as usize;
    options.max_steps.unwrap_or(epochs).max(1)
}
