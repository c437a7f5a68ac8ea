//! The constants that specialise a kernel: one struct per kernel, so that the compiler checks that none is missing.

/// A constant's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// `const NAME: u32`
    U32(u32),
    /// `const NAME: bool`
    Bool(bool),
    /// The name of the snippet to include at `//#include NAME`.
    Snippet(&'static str),
}

impl std::fmt::Display for Constant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Constant::U32(value) => value.fmt(f),
            Constant::Bool(value) => value.fmt(f),
            Constant::Snippet(name) => name.fmt(f),
        }
    }
}

impl Constant {
    /// Whether it is neither false nor 0.
    pub fn is_on(self) -> bool {
        match self {
            Constant::U32(value) => value != 0,
            Constant::Bool(value) => value,
            Constant::Snippet(_) => true,
        }
    }
}

/// A value that constants can be made from.
pub trait Constants {
    /// Adds the constant `name`; for a struct, adds each field under the field's own name in capitals.
    fn add_to(&self, name: &str, list: &mut Vec<(String, Constant)>);

    /// Returns all of them.
    fn list(&self) -> Vec<(String, Constant)> {
        let mut list = Vec::new();
        self.add_to("", &mut list);
        list
    }
}

impl Constants for () {
    fn add_to(&self, _: &str, _: &mut Vec<(String, Constant)>) {}
}

impl Constants for u32 {
    fn add_to(&self, name: &str, list: &mut Vec<(String, Constant)>) {
        list.push((name.to_uppercase(), Constant::U32(*self)));
    }
}

impl Constants for bool {
    fn add_to(&self, name: &str, list: &mut Vec<(String, Constant)>) {
        list.push((name.to_uppercase(), Constant::Bool(*self)));
    }
}

impl Constants for &'static str {
    fn add_to(&self, name: &str, list: &mut Vec<(String, Constant)>) {
        list.push((name.to_uppercase(), Constant::Snippet(self)));
    }
}

/// Declares a struct of constants; a field may be such a struct itself.
macro_rules! constants {
    ($(#[$about:meta])* $visible:vis struct $name:ident {
        $($(#[$doc:meta])* $field:ident: $kind:ty),* $(,)?
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        $visible struct $name {
            $($(#[$doc])* pub $field: $kind),*
        }

        impl $crate::gpu::shader::Constants for $name {
            fn add_to(&self, _: &str, list: &mut Vec<(String, $crate::gpu::shader::Constant)>) {
                $($crate::gpu::shader::Constants::add_to(&self.$field, stringify!($field), list);)*
            }
        }
    };
}
pub(crate) use constants;
