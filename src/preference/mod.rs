//! The losses of preference training: each by its name with its parameters, and weighted sums of them.

mod losses;
mod objective;
mod options;

pub use losses::{LOSS_NAMES, PreferenceLoss};
pub use objective::Objective;
pub use options::LossOptions;
