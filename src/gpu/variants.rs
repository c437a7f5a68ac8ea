//! Which of several variants of a kernel runs here: the same results, at different speeds on different devices.

use serde::{Deserialize, Serialize};

use super::tiles::{Candidates, ProductClass, ProductTile, UnrolledTiles};

/// What runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A GPU.
    Gpu,
    /// A processor, by a software driver.
    Processor,
}

/// How products are computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// Unrolled by text, for processors.
    Unrolled(UnrolledTiles),
    /// For GPUs.
    Staged(StagedProducts),
}

/// How products are computed on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedProducts {
    /// What was chosen, each class once.
    pub chosen: Vec<ChosenTile>,
    /// The tile of all others that have it; else it goes by their shape.
    #[serde(deserialize_with = "Option::deserialize")]
    pub otherwise: Option<ProductTile>,
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChosenTile {
    /// For these products.
    pub class: ProductClass,
    /// This tile.
    pub tile: ProductTile,
}

impl StagedProducts {
    /// This tile wherever a product has it.
    pub fn all_in(tile: ProductTile) -> StagedProducts {
        StagedProducts { chosen: Vec::new(), otherwise: Some(tile) }
    }

    /// The tile of such products, where it is not left to their shape.
    pub fn tile(&self, class: &ProductClass) -> Option<ProductTile> {
        let chosen = self.chosen.iter().find(|choice| choice.class == *class).map(|choice| choice.tile);
        chosen.or(self.otherwise.filter(|tile| class.has(tile)))
    }

    /// Chooses the tile of a class that has none yet.
    pub fn choose(&mut self, class: ProductClass, tile: ProductTile) {
        if self.chosen.iter().all(|choice| choice.class != class) {
            self.chosen.push(ChosenTile { class, tile });
        }
    }
}

/// The choices for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// How matrices are multiplied.
    pub products: Products,
    /// Whether attention goes by tiles of queries and keys that are staged in workgroup memory, and decoding by splits of the
    /// keys; else a query is an invocation.
    pub tiled_attention: bool,
    /// Whether blocks whose description allows it are recorded as fused launches.
    pub fused_blocks: bool,
}

impl Tuning {
    /// Whether a device with subgroups of this size, or none, has these kernels.
    pub fn runs_with(&self, subgroup: Option<u32>) -> bool {
        match &self.products {
            Products::Staged(_) => true,
            Products::Unrolled(UnrolledTiles { few_rows, rows, columns }) => {
                [few_rows, rows, columns].iter().all(|tile| !tile.subgroup || subgroup == Some(tile.lanes))
            }
        }
    }

    /// Whether whatever `earlier` says still holds, though more may be chosen by now.
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

    /// What is likely to do well where nothing was measured.
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

    /// What the kernels are written for, where nothing else tells.
    pub fn kind(&self) -> DeviceKind {
        match self.products {
            Products::Unrolled(_) => DeviceKind::Processor,
            Products::Staged(_) => DeviceKind::Gpu,
        }
    }
}
