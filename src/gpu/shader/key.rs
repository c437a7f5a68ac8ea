//! The key of a kernel: everything that its source depends on.

use super::constants::Constant;
use super::interface::{Binding, Parameter};

/// A kernel with everything that its source depends on.
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
    /// Whether this constant exists and is neither false nor 0.
    pub fn is_on(&self, constant: &str) -> bool {
        self.constants.iter().any(|(name, value)| name == constant && value.is_on())
    }
}
