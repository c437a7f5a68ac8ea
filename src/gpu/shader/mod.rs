//! A kernel's whole source, from its file and from what its launch gives it: constants, parameters and bindings.
//!
//! A file in `shaders/` holds a kernel's entry point and functions; it declares neither parameters nor bindings. Those come
//! from the list of the launch, once, and so do the functions by which rows of any length and format are read. A constant
//! that a kernel does not use, or uses and is not given, is an error; so is an unused parameter or binding.

mod compile;
mod constants;
mod interface;
mod text;

pub(super) use compile::Kernel;
pub use compile::validate;
pub(crate) use constants::constants;
pub use constants::{Constant, Constants};
pub use interface::{Binding, Elements, Parameter};
pub use text::{KERNELS, assemble};

/// A kernel with all that its source depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelKey {
    /// Name of the kernel's file.
    pub name: &'static str,
    /// Constants, in the order of their struct.
    pub constants: Vec<(String, Constant)>,
    /// The words of the uniform `params`.
    pub params: Vec<Parameter>,
    /// The storage bindings, from binding 1 on.
    pub bindings: Vec<Binding>,
}

impl KernelKey {
    /// Whether a constant is there and is neither false nor 0.
    pub fn is_on(&self, constant: &str) -> bool {
        self.constants.iter().any(|(name, value)| name == constant && value.is_on())
    }
}
