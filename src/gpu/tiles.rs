//! Tiles of matrix products, and the classes of products that tiles are chosen for.

use serde::{Deserialize, Serialize};

use super::tensor::Format;

/// A tile of a matrix product whose loops are unrolled in the source, for CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnrolledTile {
    /// Whether the lanes of a subgroup share the loads of their common operand; otherwise each lane loads all of it.
    pub subgroup: bool,
    /// Lanes.
    pub lanes: u32,
    /// Rows per lane.
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

/// The tiles of products on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnrolledTiles {
    /// For products with few rows, as in decoding.
    pub few_rows: UnrolledTile,
    /// For other products.
    pub rows: UnrolledTile,
    /// For products summed over rows: a weight's gradient. Four rows per lane.
    pub columns: UnrolledTile,
}

/// The candidates for [`UnrolledTiles`]; the first of each list is the default without measurements.
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
    /// Returns the candidates for a CPU.
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
                all.rows.insert(1, tile(true, lanes, 2, 32));
            }
        }
        all
    }
}

/// A tile of a matrix product whose operands are staged in workgroup memory, for GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedTile {
    /// Rows per workgroup.
    pub rows: u32,
    /// Columns per workgroup.
    pub cols: u32,
    /// Elements along the sum that are staged at a time.
    pub depth: u32,
    /// Rows per lane: 4 or 8.
    pub lane_rows: u32,
    /// Columns per lane: 4 or 8.
    pub lane_cols: u32,
}

impl StagedTile {
    const fn new(rows: u32, cols: u32, depth: u32, lane_rows: u32, lane_cols: u32) -> StagedTile {
        StagedTile { rows, cols, depth, lane_rows, lane_cols }
    }

    /// The default: most compilers keep it in registers.
    pub const SQUARE: StagedTile = StagedTile::new(64, 64, 16, 8, 8);
    /// For few rows.
    pub const FLAT: StagedTile = StagedTile::new(32, 64, 16, 4, 8);
    /// For small results, to get more workgroups.
    pub const SMALL: StagedTile = StagedTile::new(32, 32, 32, 4, 4);
    /// Every tile that the kernels are tested with.
    pub const ALL: [StagedTile; 3] = [StagedTile::SQUARE, StagedTile::FLAT, StagedTile::SMALL];
}

/// How a product is computed on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductTile {
    /// Both operands staged in tiles.
    Staged(StagedTile),
    /// Column by column, with lanes along the sum: for few rows, summed along the rows of both operands.
    Matvec,
}

impl std::fmt::Display for ProductTile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProductTile::Staged(StagedTile { rows, cols, depth, lane_rows, lane_cols }) => {
                write!(f, "{rows} x {cols} x {depth}, {lane_rows} x {lane_cols} a lane")
            }
            ProductTile::Matvec => write!(f, "by columns"),
        }
    }
}

/// The extents that a product sums over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductForm {
    /// y = x wᵀ, along the rows of both.
    AlongBoth,
    /// dx = dy w, along the rows of the left operand.
    AlongLeft,
    /// dw = dyᵀ x, along the rows of neither operand.
    AlongNeither,
}

/// A class of products with one chosen tile: equal in what decides their speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductClass {
    /// What is summed over.
    pub form: ProductForm,
    /// Rows of the result, as the next power of two.
    pub rows: u32,
    /// Columns of the result, as the next power of two.
    pub cols: u32,
    /// Elements of a sum, as the next power of two.
    pub inner: u32,
    /// How the right operand is stored.
    pub format: Format,
}

impl ProductClass {
    /// The most rows of a product that may be computed column by column.
    const FEW_ROWS: u32 = 16;
    /// Larger row counts fall into the same class; below, the same for columns and elements of a sum.
    const MANY_ROWS: u32 = 1024;
    const MANY: u32 = 8192;

    /// The class of a product with (rows, cols) results, sums of `inner` elements each.
    pub fn new(form: ProductForm, rows: u32, cols: usize, inner: usize, format: Format) -> ProductClass {
        let up = |n: usize, most: u32| (n.clamp(1, most as usize) as u32).next_power_of_two();
        ProductClass {
            form,
            rows: up(rows as usize, ProductClass::MANY_ROWS),
            cols: up(cols, ProductClass::MANY),
            inner: up(inner, ProductClass::MANY),
            format,
        }
    }

    /// Whether these products can be computed with this tile.
    pub fn has(&self, tile: &ProductTile) -> bool {
        match tile {
            ProductTile::Staged(_) => true,
            ProductTile::Matvec => self.form == ProductForm::AlongBoth && self.rows <= ProductClass::FEW_ROWS,
        }
    }

    /// Returns the candidates: the possible tiles, without those that would be mostly empty.
    pub fn candidates(&self) -> Vec<ProductTile> {
        let filled = |tile: &StagedTile| tile.rows <= self.rows.max(32) && tile.cols <= self.cols.max(32);
        let staged = StagedTile::ALL.into_iter().filter(filled).map(ProductTile::Staged);
        let all = [ProductTile::Matvec].into_iter().chain(staged);
        all.filter(|tile| self.has(tile)).collect()
    }
}

impl std::fmt::Display for ProductClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ProductClass { form, rows, cols, inner, format } = self;
        let form = match form {
            ProductForm::AlongBoth => "x wᵀ",
            ProductForm::AlongLeft => "dy w",
            ProductForm::AlongNeither => "dyᵀ x",
        };
        write!(f, "{form} of {rows} x {cols}, sums of {inner}, {format:?}")
    }
}
