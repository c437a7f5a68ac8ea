pub mod data;
pub mod error;
pub mod files;
pub mod gpu;
pub mod model;
pub mod ops;
pub mod reference;
pub use error::{Error, Result};
