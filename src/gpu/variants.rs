//! Kernel variants: the same results, at different speeds on different devices.

use serde::{Deserialize, Serialize};

use super::tiles::{Candidates, ProductClass, ProductTile, UnrolledTiles};

/// The kind of device that runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A GPU.
    Gpu,
    /// A CPU with a software driver.
    Processor,
}

/// How products are computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// Unrolled in the source, for CPUs.
    Unrolled(UnrolledTiles),
    /// Staged in workgroup memory, for GPUs.
    Staged(StagedProducts),
}

/// How products are computed on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedProducts {
    /// The chosen tiles, one per class.
    pub chosen: Vec<ChosenTile>,
    /// The tile for all other classes that support it; without it, their shape decides.
    #[serde(deserialize_with = "Option::deserialize")]
    pub otherwise: Option<ProductTile>,
}

/// The tile chosen for a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChosenTile {
    /// The class of products.
    pub class: ProductClass,
    /// Its tile.
    pub tile: ProductTile,
}

impl StagedProducts {
    /// Uses this tile for every product that supports it.
    pub fn all_in(tile: ProductTile) -> StagedProducts {
        StagedProducts { chosen: Vec::new(), otherwise: Some(tile) }
    }

    /// Returns the tile for these products, unless their shape decides.
    pub fn tile(&self, class: &ProductClass) -> Option<ProductTile> {
        let chosen = self.chosen.iter().find(|choice| choice.class == *class).map(|choice| choice.tile);
        chosen.or(self.otherwise.filter(|tile| class.has(tile)))
    }

    /// Chooses the tile of a class, unless it has one already.
    pub fn choose(&mut self, class: ProductClass, tile: ProductTile) {
        if self.chosen.iter().all(|choice| choice.class != class) {
            self.chosen.push(ChosenTile { class, tile });
        }
    }
}

/// The kernel variants for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// How matrix products are computed.
    pub products: Products,
    /// Whether attention stages tiles of queries and keys in workgroup memory, and decoding splits the keys; otherwise
    /// each query is one invocation.
    pub tiled_attention: bool,
    /// Whether blocks that support it are recorded as fused launches.
    pub fused_blocks: bool,
}

impl Tuning {
    /// Whether these kernels can run on a device with this subgroup size (or none).
    pub fn runs_with(&self, subgroup: Option<u32>) -> bool {
        match &self.products {
            Products::Staged(_) => true,
            Products::Unrolled(UnrolledTiles { few_rows, rows, columns }) => {
                [few_rows, rows, columns].iter().all(|tile| !tile.subgroup || subgroup == Some(tile.lanes))
            }
        }
    }

    /// Whether all choices of `earlier` still hold, though more tiles may have been chosen.
    pub fn keeps(&self, earlier: &Tuning) -> bool {
        let products = match (&self.products, &earlier.products) {
            (Products::Staged(now), Products::Staged(then)) => {
                now.otherwise == then.otherwise
                    && then.chosen.iter().all(|choice| now.chosen.contains(choice))
            }
            (now, then) => now == then,
        };
        products
            && (self.tiled_attention, self.fused_blocks) == (earlier.tiled_attention, earlier.fused_blocks)
    }

    /// Returns the default variants without measurements.
    pub fn untuned(subgroup: Option<u32>, kind: DeviceKind) -> Tuning {
        let products = match kind {
            DeviceKind::Gpu => Products::Staged(StagedProducts::default()),
            DeviceKind::Processor => {
                let all = Candidates::unrolled(subgroup);
                Products::Unrolled(UnrolledTiles {
                    few_rows: all.few_rows[0],
                    rows: all.rows[0],
                    columns: all.columns[0],
                })
            }
        };
        Tuning { products, tiled_attention: kind == DeviceKind::Gpu, fused_blocks: true }
    }

    /// Returns the kind of device that the kernels are written for.
    pub fn kind(&self) -> DeviceKind {
        match self.products {
            Products::Unrolled(_) => DeviceKind::Processor,
            Products::Staged(_) => DeviceKind::Gpu,
        }
    }
}
