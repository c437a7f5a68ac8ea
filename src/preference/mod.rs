//! Losses of preference training, by name and with their parameters, and weighted sums of them.

mod losses;
mod objective;
mod options;

pub use losses::{LOSS_NAMES, PreferenceLoss};
pub use objective::Objective;
pub use options::LossOptions;
