//! A kernel's whole source, from its file and from what its launch gives it: constants, parameters and bindings.
//!
//! A file in `shaders/` holds a kernel's entry point and functions; it declares neither parameters nor bindings. Those come
//! from the list of the launch, once, and so do the functions by which rows of any length and format are read. A constant
//! that a kernel does not use, or uses and is not given, is an error; so is an unused parameter or binding.

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
