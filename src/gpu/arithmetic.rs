//! In which numbers matrices are multiplied: f32, or matrices of f16 where they were asked for.

use super::adapter::{Tier, subgroup_size};
use crate::error::{Error, Result};

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

impl Arithmetic {
    /// That of a tier that was asked for.
    ///
    /// # Errors
    /// [`Error::Config`] where the GPU does not have what T2 needs.
    pub(super) fn of_tier(tier: Option<Tier>, name: &str, adapter: &wgpu::Adapter) -> Result<Arithmetic> {
        let missing = |tier: u8, what: &str| {
            let why =
                format!("{name} cannot run tier {tier}, it has no {what}: choose another GPU, or tier 1");
            Error::config("tier", why)
        };
        match tier {
            None | Some(Tier::Portable | Tier::Subgroups) => Ok(Arithmetic::F32),
            Some(Tier::Cooperative) => {
                cooperative(adapter).ok_or_else(|| missing(2, "cooperative matrices of f16 with f32 sums"))
            }
        }
    }
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Arithmetic::F32 => f.write_str("f32"),
            Arithmetic::Cooperative { size, .. } => write!(f, "cooperative matrices of {size} x {size}"),
        }
    }
}

/// The cooperative matrices of f16 with f32 sums, the larger ones first.
fn cooperative(adapter: &wgpu::Adapter) -> Option<Arithmetic> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let features = adapter.features();
    let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
    if !features.contains(needed) {
        return None;
    }
    let lanes = subgroup_size(&adapter.get_info(), features)?;
    let has = |size: u32| {
        adapter.cooperative_matrix_properties().iter().any(|p| {
            (p.m_size, p.n_size, p.k_size) == (size, size, size) && (p.ab_type, p.cr_type) == (F16, F32)
        })
    };
    [16, 8].into_iter().find(|size| has(*size)).map(|size| Arithmetic::Cooperative { size, lanes })
}
