//! In which numbers matrices are multiplied: f32, or matrices of f16 where they were asked for.

/// How products of rows with a frozen f16 matrix are computed. Everything else is f32, gradients among it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// In f32.
    #[default]
    F32,
    /// By cooperative matrices of f16 with f32 sums. Has run on a software driver only (lavapipe of Mesa 26.2, `size` 8),
    /// on no hardware of ours; and wgpu calls them experimental.
    Cooperative {
        /// Rows and columns of a matrix: 8 or 16.
        size: u32,
        /// Invocations of a subgroup.
        lanes: u32,
    },
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Arithmetic::F32 => f.write_str("f32"),
            Arithmetic::Cooperative { size, .. } => write!(f, "cooperative matrices of {size} x {size}"),
        }
    }
}
