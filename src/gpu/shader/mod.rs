//! Builds a kernel's source from its file and from the constants, parameters and bindings of its launch.
//!
//! A file in `shaders/` contains a kernel's entry point and functions; it declares no parameters and no bindings. Those
//! are generated once from the launch, and so are the functions that read rows of any length and format. A constant
//! that is given but not used, or used but not given, is an error; so is an unused parameter or binding.

mod constants;
mod interface;
mod key;
mod text;
mod validate;

pub(crate) use constants::constants;
pub use constants::{Constant, Constants};
pub use interface::{Binding, Elements, Parameter};
pub use key::KernelKey;
pub use text::{KERNELS, assemble};
pub use validate::validate;
