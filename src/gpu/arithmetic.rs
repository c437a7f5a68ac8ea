//! The number formats that matrices are multiplied in: f32, or f16 matrices if they were requested.

/// How products of rows with a frozen f16 matrix are computed. Everything else is f32, including gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// In f32.
    #[default]
    F32,
    /// With cooperative matrices of f16 and f32 sums, which wgpu marks as experimental. Tested on a software driver
    /// (lavapipe of Mesa 26.2, `size` 8) and on an NVIDIA H200 (`size` 16), where it is slower than f32.
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
