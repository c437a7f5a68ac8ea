pub mod error;
pub mod gpu;
pub mod ops;
pub mod reference;
pub use error::{Error, Result};
