//! Which of several variants of a kernel runs here: the same results, at different speeds on different devices.

use serde::{Deserialize, Serialize};

/// What runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A GPU.
    Gpu,
    /// A processor, by a software driver.
    Processor,
}

/// A tile of a matrix product that is unrolled by text, for processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnrolledTile {
    /// Whether the lanes of a subgroup load the operand that they share together; else each loads all of it.
    pub subgroup: bool,
    /// Lanes.
    pub lanes: u32,
    /// Rows of a lane.
    pub rows: u32,
    /// Columns: a multiple of 8, and of `lanes` in a subgroup.
    pub cols: u32,
}

impl std::fmt::Display for UnrolledTile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let UnrolledTile { subgroup, lanes, rows, cols } = self;
        let sharing = if *subgroup { "share in a subgroup" } else { "share nothing" };
        write!(f, "{rows} x {cols} a lane, {lanes} lanes {sharing}")
    }
}

/// The tiles of products on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnrolledTiles {
    /// For products of a few rows, as when decoding.
    pub few_rows: UnrolledTile,
    /// For other products of rows.
    pub rows: UnrolledTile,
    /// For products of columns: a weight's gradient. Four rows a lane.
    pub columns: UnrolledTile,
}

/// A tile of a matrix product whose operands are staged in workgroup memory, for GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StagedTile {
    /// Rows of a workgroup.
    pub rows: u32,
    /// Columns of a workgroup.
    pub cols: u32,
    /// Elements along the sum that are staged at a time.
    pub depth: u32,
    /// Rows of a lane: 4 or 8.
    pub lane_rows: u32,
    /// Columns of a lane: 4 or 8.
    pub lane_cols: u32,
}

impl StagedTile {
    const fn new(rows: u32, cols: u32, depth: u32, lane_rows: u32, lane_cols: u32) -> StagedTile {
        StagedTile { rows, cols, depth, lane_rows, lane_cols }
    }

    /// The usual one: what most compilers keep in registers.
    pub const SQUARE: StagedTile = StagedTile::new(64, 64, 16, 8, 8);
    /// For few rows.
    pub const FLAT: StagedTile = StagedTile::new(32, 64, 16, 4, 8);
    /// For few results, so that there are more workgroups.
    pub const SMALL: StagedTile = StagedTile::new(32, 32, 32, 4, 4);
    /// Every one that the kernels are tested with.
    pub const ALL: [StagedTile; 3] = [StagedTile::SQUARE, StagedTile::FLAT, StagedTile::SMALL];
}

/// How products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// Unrolled by text.
    Unrolled(UnrolledTiles),
    /// With operands staged in workgroup memory, in this tile or else in one that goes by the product's shape.
    Staged(Option<StagedTile>),
}

/// The choices for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        match self.products {
            Products::Staged(_) => true,
            Products::Unrolled(UnrolledTiles { few_rows, rows, columns }) => {
                [few_rows, rows, columns].iter().all(|tile| !tile.subgroup || subgroup == Some(tile.lanes))
            }
        }
    }

    /// What is likely to do well where nothing was measured.
    pub fn untuned(subgroup: Option<u32>, kind: DeviceKind) -> Tuning {
        let products = match kind {
            DeviceKind::Gpu => Products::Staged(None),
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

/// The tiles that [`UnrolledTiles`] are chosen from; the first of each is the choice where nothing was measured.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// For [`UnrolledTiles::few_rows`].
    pub few_rows: Vec<UnrolledTile>,
    /// For [`UnrolledTiles::rows`].
    pub rows: Vec<UnrolledTile>,
    /// For [`UnrolledTiles::columns`].
    pub columns: Vec<UnrolledTile>,
}

impl Candidates {
    /// What there is to choose from on a processor.
    pub fn unrolled(subgroup: Option<u32>) -> Candidates {
        let tile = |subgroup, lanes, rows, cols| UnrolledTile { subgroup, lanes, rows, cols };
        let mut all = Candidates {
            few_rows: vec![tile(false, 8, 1, 32)],
            rows: vec![tile(false, 8, 4, 16), tile(false, 8, 2, 16)],
            columns: vec![tile(false, 8, 4, 16)],
        };
        if let Some(lanes) = subgroup {
            let wide = lanes.max(16);
            all.few_rows.insert(0, tile(true, lanes, 1, lanes.max(32)));
            all.rows.insert(0, tile(true, lanes, 64 / wide, wide));
            all.columns.insert(0, tile(true, lanes, 4, 16));
            if lanes <= 16 {
                all.rows.push(tile(true, lanes, 2, 32));
            }
        }
        all
    }
}
