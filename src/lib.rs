pub mod annotate;
#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod error;
pub mod eval;
pub mod files;
pub mod generate;
pub mod gpu;
pub mod model;
pub mod ops;
pub mod optim;
pub mod preference;
pub mod reference;
pub mod train;
pub use error::{Error, Result};
