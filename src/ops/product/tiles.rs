//! How a device computes a product: the snippet that a kernel includes as `PRODUCT`, its constants, and the workgroups.

use crate::gpu::shader::{Constant, Constants, constants};
use crate::gpu::{
    Arithmetic, Dim, Format, Groups, ProductClass, ProductForm, ProductTile, Products, Recorder, StagedTile,
    UnrolledTile, UnrolledTiles,
};

/// How the results of a product are divided among workgroups, and the constants of its snippet.
pub(in crate::unstable::ops) struct Shared {
    /// Workgroups.
    pub groups: Groups,
    /// Constants.
    pub constants: Vec<(String, Constant)>,
}

/// A product along both rows, y = x wᵀ, with what its kernel needs.
#[derive(Clone, Copy)]
pub(in crate::unstable::ops) struct Forward {
    /// Rows of y.
    pub rows: Dim,
    /// Columns of y; pairs of columns if they are paired.
    pub cols: usize,
    /// Elements of a sum in the first product.
    pub inner: usize,
    /// How w is stored.
    pub format: Format,
    /// Whether a second product is added (a LoRA term).
    pub two_terms: bool,
    /// Whether two products with equal numbers of columns belong together, see `finish_pair`.
    pub paired: bool,
    /// Whether the product divides rows by their root mean square.
    pub norm: bool,
}

/// Without measurements, products of up to this many rows are computed column by column rather than in tiles.
const FEW_ROWS: u32 = 8;
/// The number of tiles that keeps a GPU busy: with fewer, tiles are made smaller.
const ENOUGH_TILES: u32 = 128;

/// A product along both rows.
pub(in crate::unstable::ops) fn along_both(r: &Recorder, p: Forward) -> Shared {
    if let (Format::F16, Arithmetic::Cooperative { size, lanes }) = (p.format, r.arithmetic()) {
        return cooperative((size, lanes), p);
    }
    if let Products::Unrolled(tiles) = r.tuning().products {
        return unrolled_forward(tiles, p);
    }
    let cols = if p.paired { 2 * p.cols } else { p.cols };
    let class = ProductClass::new(ProductForm::AlongBoth, p.rows.max(), cols, p.inner, p.format);
    let by_shape = match p.rows.max() <= FEW_ROWS {
        true => ProductTile::Matvec,
        false => ProductTile::Staged(by_shape(p.rows, cols)),
    };
    match r.tile(class, by_shape) {
        ProductTile::Matvec => few_rows(p),
        ProductTile::Staged(tile) => {
            // The two halves of a tile must be whole vectors of four per lane.
            let tile = if p.paired && tile.lane_cols < 8 { StagedTile::FLAT } else { tile };
            let tile = if p.paired { beside_long_finish(tile, p.format) } else { tile };
            let kind = Staging { two_terms: p.two_terms, paired: p.paired, ..Staging::default() };
            let mut shared = staged(tile, p.rows, cols, kind);
            shared.constants.extend(no_norm(p));
            shared
        }
    }
}

/// A product along the left rows alone: dx = dy w, with (rows, cols) results of `inner` elements each; `long_finish`
/// says whether `finish` does more than store them.
pub(in crate::unstable::ops) fn along_left(
    r: &Recorder,
    (rows, cols): (Dim, usize),
    inner: usize,
    format: Format,
    two_terms: bool,
    long_finish: bool,
) -> Shared {
    if let Products::Unrolled(tiles) = r.tuning().products {
        return unrolled_along_left(tiles, rows, cols, two_terms);
    }
    let class = ProductClass::new(ProductForm::AlongLeft, rows.max(), cols, inner, format);
    let kind = Staging { right_along_k: false, two_terms, ..Staging::default() };
    let tile = staged_tile(r, class, by_shape(rows, cols));
    staged(if long_finish { beside_long_finish(tile, format) } else { tile }, rows, cols, kind)
}

/// Returns a smaller tile if `finish` is long: together with unpacking integers, the largest tile needs a few registers
/// more than Intel's GPUs have.
fn beside_long_finish(tile: StagedTile, format: Format) -> StagedTile {
    match format {
        Format::Q8 | Format::Q4 if tile == StagedTile::SQUARE => StagedTile::FLAT,
        _ => tile,
    }
}

/// A product along neither: dw = dyᵀ x, with (rows, cols) results of `inner` elements each, summed in `slices` slices.
pub(super) fn along_neither(r: &Recorder, (rows, cols): (usize, usize), inner: Dim, slices: u32) -> Shared {
    if let Products::Unrolled(tiles) = r.tuning().products {
        return unrolled_along_neither(tiles, rows, cols, slices);
    }
    let form = ProductForm::AlongNeither;
    let class = ProductClass::new(form, rows as u32, cols, inner.max() as usize, Format::F32);
    let rows = Dim::from(rows);
    let kind = Staging { left_along_k: false, right_along_k: false, split: true, ..Staging::default() };
    let shared = staged(staged_tile(r, class, by_shape(rows, cols)), rows, cols, kind);
    Shared { groups: shared.groups.times(slices), ..shared }
}

/// Returns the tile for products that only the staged kernels compute.
fn staged_tile(r: &Recorder, class: ProductClass, by_shape: StagedTile) -> StagedTile {
    match r.tile(class, ProductTile::Staged(by_shape)) {
        ProductTile::Staged(tile) => tile,
        ProductTile::Matvec => by_shape,
    }
}

constants! {
    struct NoNorm {
        norm: bool,
    }
}

/// The constant of kernels whose rows are normalised in an earlier launch, as on every GPU.
fn no_norm(p: Forward) -> Vec<(String, Constant)> {
    assert!(!p.norm, "products on a GPU do not normalise");
    NoNorm { norm: false }.list()
}

constants! {
    /// Properties of a product whose operands are staged in workgroup memory.
    struct Staging {
        left_along_k: bool,
        right_along_k: bool,
        two_terms: bool,
        paired: bool,
        /// Whether the sum is divided into slices.
        split: bool,
    }
}

impl Default for Staging {
    /// A single product along both rows.
    fn default() -> Staging {
        Staging { left_along_k: true, right_along_k: true, two_terms: false, paired: false, split: false }
    }
}

constants! {
    /// Constants of its tile, see [`StagedTile`].
    struct Staged {
        product: &'static str,
        tile_rows: u32,
        tile_cols: u32,
        depth: u32,
        lane_rows: u32,
        lane_cols: u32,
        staging: Staging,
    }
}

fn staged(tile: StagedTile, rows: Dim, cols: usize, staging: Staging) -> Shared {
    let groups = Groups::over(rows, tile.rows).times((cols as u32).div_ceil(tile.cols));
    let StagedTile { rows: tile_rows, cols: tile_cols, depth, lane_rows, lane_cols } = tile;
    let product = "product_tiled";
    let constants = Staged { product, tile_rows, tile_cols, depth, lane_rows, lane_cols, staging }.list();
    Shared { groups, constants }
}

/// Returns the default tile for (rows, cols) results, without measurements.
fn by_shape(rows: Dim, cols: usize) -> StagedTile {
    let square = StagedTile::SQUARE;
    let tiles = rows.max().div_ceil(square.rows) * (cols as u32).div_ceil(square.cols);
    if rows.max() <= 32 || tiles < ENOUGH_TILES { StagedTile::FLAT } else { square }
}

constants! {
    /// A product of few rows.
    struct FewRows {
        product: &'static str,
        rows: u32,
        /// Columns per workgroup, counting both products if they are paired.
        cols: u32,
        /// Vectors of a column that a lane loads at a time.
        steps: u32,
        two_terms: bool,
        paired: bool,
    }
}

/// A product of few rows on a GPU: its columns are read once, with lanes along k.
fn few_rows(p: Forward) -> Shared {
    let rows = p.rows.max().next_power_of_two();
    let (rows, cols, steps) = match (p.paired, rows) {
        (true, rows) => (rows.min(4), 8, 1),
        (false, rows @ 1..=2) => (rows, 4, 2),
        (false, rows) => (rows, 4, 1),
    };
    let width = if p.paired { cols / 2 } else { cols };
    let (two_terms, paired) = (p.two_terms, p.paired);
    let mut constants = FewRows { product: "product_matvec", rows, cols, steps, two_terms, paired }.list();
    constants.extend(no_norm(p));
    let groups = Groups::over(p.rows, rows).times((p.cols as u32).div_ceil(width));
    Shared { groups, constants }
}

constants! {
    /// An unrolled product.
    struct Unrolled {
        product: &'static str,
        /// Whether the lanes of a subgroup share loads.
        subgroup: bool,
        /// Lanes per tile.
        lanes: u32,
        /// Lanes per workgroup.
        workgroup: u32,
        /// Columns per tile.
        tile_cols: u32,
    }
}

constants! {
    /// The additional constants of products of rows.
    struct UnrolledRows {
        /// Rows per lane.
        tile_rows: u32,
        /// The number of products that are added: the second is a LoRA term.
        terms: u32,
    }
}

constants! {
    /// The additional constants of products along both rows.
    struct UnrolledForward {
        paired: bool,
        norm: bool,
    }
}

constants! {
    /// The additional constants of a weight's gradient.
    struct UnrolledWeight {
        /// Rows that lanes load at a time.
        k_step: u32,
    }
}

/// The most lanes per workgroup.
const WORKGROUP: u32 = 64;
/// From this number of workgroups on, they are made larger instead of more numerous.
const ENOUGH_GROUPS: u32 = 64;

/// Returns the workgroups for (rows, cols) results in such tiles, and the constants of the snippet.
fn divide(product: &'static str, tile: UnrolledTile, rows: Dim, cols: usize) -> (Groups, Unrolled) {
    let height = tile.lanes * tile.rows;
    let across = (cols as u32).div_ceil(tile.cols);
    let tiles = rows.max().div_ceil(height) * across;
    let most = (WORKGROUP / tile.lanes).min(rows.max().div_ceil(height).next_power_of_two());
    let stacked = 1 << (tiles / ENOUGH_GROUPS).clamp(1, most.max(1)).ilog2();
    let constants = Unrolled {
        product,
        subgroup: tile.subgroup,
        lanes: tile.lanes,
        workgroup: stacked * tile.lanes,
        tile_cols: tile.cols,
    };
    (Groups::over(rows, height * stacked).times(across), constants)
}

impl UnrolledTiles {
    /// Returns the tile for products of rows with (rows, …) results.
    fn of_rows(self, rows: Dim) -> UnrolledTile {
        let few = self.few_rows;
        if rows.max() <= few.lanes * few.rows { few } else { self.rows }
    }
}

fn unrolled_forward(tiles: UnrolledTiles, p: Forward) -> Shared {
    let tile = tiles.of_rows(p.rows);
    // Each of the two products takes half of a tile's columns.
    let cols = if p.paired { 2 * p.cols } else { p.cols };
    let (groups, unrolled) = divide("product_nt_unrolled", tile, p.rows, cols);
    let mut constants = unrolled.list();
    constants.extend(UnrolledRows { tile_rows: tile.rows, terms: 1 + p.two_terms as u32 }.list());
    constants.extend(UnrolledForward { paired: p.paired, norm: p.norm }.list());
    Shared { groups, constants }
}

fn unrolled_along_left(tiles: UnrolledTiles, rows: Dim, cols: usize, two_terms: bool) -> Shared {
    let tile = tiles.of_rows(rows);
    let (groups, unrolled) = divide("product_nn_unrolled", tile, rows, cols);
    let mut constants = unrolled.list();
    constants.extend(UnrolledRows { tile_rows: tile.rows, terms: 1 + two_terms as u32 }.list());
    Shared { groups, constants }
}

fn unrolled_along_neither(tiles: UnrolledTiles, rows: usize, cols: usize, slices: u32) -> Shared {
    let tile = tiles.columns;
    let (groups, unrolled) = divide("product_tn_unrolled", tile, Dim::from(rows), cols);
    let k_step = if tile.subgroup { tile.lanes / (tile.cols / 4) } else { 1 };
    let mut constants = unrolled.list();
    constants.extend(UnrolledWeight { k_step }.list());
    Shared { groups: groups.times(slices), constants }
}

constants! {
    /// A product with cooperative matrices.
    struct Cooperative {
        product: &'static str,
        cooperative: bool,
        lanes: u32,
        /// Rows and columns of a matrix, and whether they are 8.
        size: u32,
        eight: bool,
        /// Rows per lane.
        tile_rows: u32,
        tile_cols: u32,
        /// Matrices per tile.
        height: u32,
        width: u32,
        terms: u32,
        paired: bool,
        norm: bool,
    }
}

/// A product with cooperative matrices of this size. A tile has at most 2048 results, to fit into the 16 KiB of
/// workgroup memory that every GPU has.
fn cooperative((size, lanes): (u32, u32), p: Forward) -> Shared {
    let tile_rows = (32 / lanes).max(1);
    let height = lanes * tile_rows;
    let tile_cols = (4 * size).min(2048 / height);
    let constants = Cooperative {
        product: "product_nt_cooperative",
        cooperative: true,
        lanes,
        size,
        eight: size == 8,
        tile_rows,
        tile_cols,
        height: height / size,
        width: tile_cols / size,
        terms: 1 + p.two_terms as u32,
        paired: p.paired,
        norm: p.norm,
    };
    let across = (p.cols as u32).div_ceil(if p.paired { tile_cols / 2 } else { tile_cols });
    Shared { groups: Groups::over(p.rows, height).times(across), constants: constants.list() }
}
