//! Matrix products: their launches, and how a device computes them. What an op does with the sums is its kernel's, which defines
//! `left`, `right` and `finish` (or `finish_pair`); the product itself is a snippet that the kernel includes, `PRODUCT`.

use super::matrix::MatrixRows;
use crate::gpu::shader::{Constant, Constants, constants};
use crate::gpu::{
    Accumulate, Arg, Arithmetic, Dim, Format, GradientTarget, Groups, Launch, Products, Recorder, Slices,
    StagedTile, Tensor, UnrolledTile, UnrolledTiles, Word, Work, read, write,
};

/// How the results of a product are shared out, and the constants of the snippet that computes it.
pub(super) struct Shared {
    /// Workgroups.
    pub groups: Groups,
    /// Constants.
    pub constants: Vec<(String, Constant)>,
}

/// A product along both rows, y = x wᵀ, as its kernel has it.
#[derive(Clone, Copy)]
pub(super) struct Forward {
    /// Rows of y.
    pub rows: Dim,
    /// Columns of y; pairs of them, where they are paired.
    pub cols: usize,
    /// How w is stored.
    pub format: Format,
    /// Whether a second product is added, LoRA's.
    pub two_terms: bool,
    /// Whether two products with as many columns each belong together, see `finish_pair`.
    pub paired: bool,
    /// Whether rows are divided by their root mean square on the way.
    pub norm: bool,
}

/// Rows up to which products are computed column by column rather than in tiles.
const FEW_ROWS: u32 = 8;
/// Tiles that keep a GPU busy: fewer are made smaller.
const ENOUGH_TILES: u32 = 128;

/// A product along both rows.
pub(super) fn along_both(r: &Recorder, p: Forward) -> Shared {
    if let (Format::F16, Arithmetic::Cooperative { size, lanes }) = (p.format, r.arithmetic()) {
        return cooperative((size, lanes), p);
    }
    let tile = match r.tuning().products {
        Products::Unrolled(tiles) => return unrolled_forward(tiles, p),
        Products::Staged(None) if p.rows.max() <= FEW_ROWS => return few_rows(p),
        Products::Staged(None) if p.paired => by_shape(p.rows, 2 * p.cols),
        Products::Staged(tile) => tile.unwrap_or_else(|| by_shape(p.rows, p.cols)),
    };
    // Halves of a tile that belong together are whole quads of a lane.
    let tile = if p.paired && tile.lane_cols < 8 { StagedTile::FLAT } else { tile };
    let width = if p.paired { tile.cols / 2 } else { tile.cols };
    let kind = Staging { two_terms: p.two_terms, paired: p.paired, ..Staging::default() };
    let groups = Groups::over(p.rows, tile.rows).times((p.cols as u32).div_ceil(width));
    let mut constants = staged(tile, kind);
    constants.extend(no_norm(p));
    Shared { groups, constants }
}

/// A product along the left rows alone: dx = dy w.
pub(super) fn along_left(r: &Recorder, rows: Dim, cols: usize, two_terms: bool) -> Shared {
    match r.tuning().products {
        Products::Unrolled(tiles) => unrolled_along_left(tiles, rows, cols, two_terms),
        Products::Staged(tile) => {
            let tile = tile.unwrap_or_else(|| by_shape(rows, cols));
            let kind = Staging { right_along_k: false, two_terms, ..Staging::default() };
            let groups = Groups::over(rows, tile.rows).times((cols as u32).div_ceil(tile.cols));
            Shared { groups, constants: staged(tile, kind) }
        }
    }
}

/// A product along neither: dw = dyᵀ x, in `slices` of the rows.
fn along_neither(r: &Recorder, rows: usize, cols: usize, slices: u32) -> Shared {
    match r.tuning().products {
        Products::Unrolled(tiles) => unrolled_along_neither(tiles, rows, cols, slices),
        Products::Staged(tile) => {
            let tile = tile.unwrap_or_else(|| by_shape(Dim::from(rows), cols));
            let along = Staging { left_along_k: false, right_along_k: false, ..Staging::default() };
            let groups = Groups::over(rows, tile.rows).times((cols as u32).div_ceil(tile.cols) * slices);
            Shared { groups, constants: staged(tile, Staging { split: true, ..along }) }
        }
    }
}

constants! {
    struct NoNorm {
        norm: bool,
    }
}

/// The constant of kernels whose rows are normalised before, as for every product on a GPU.
fn no_norm(p: Forward) -> Vec<(String, Constant)> {
    assert!(!p.norm, "products on a GPU do not normalise");
    NoNorm { norm: false }.list()
}

constants! {
    /// What a product does whose operands are staged in workgroup memory.
    struct Staging {
        left_along_k: bool,
        right_along_k: bool,
        two_terms: bool,
        paired: bool,
        /// Whether the sum is shared out among slices.
        split: bool,
    }
}

impl Default for Staging {
    /// One product along both rows.
    fn default() -> Staging {
        Staging { left_along_k: true, right_along_k: true, two_terms: false, paired: false, split: false }
    }
}

constants! {
    /// Its tile, see [`StagedTile`].
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

fn staged(tile: StagedTile, staging: Staging) -> Vec<(String, Constant)> {
    let StagedTile { rows, cols, depth, lane_rows, lane_cols } = tile;
    let (tile_rows, tile_cols, product) = (rows, cols, "product_tiled");
    Staged { product, tile_rows, tile_cols, depth, lane_rows, lane_cols, staging }.list()
}

/// The tile for (rows, cols) results, where nothing was measured.
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
        /// Columns of a workgroup, of both products where they are paired.
        cols: u32,
        /// Vectors of a column that a lane has on their way at a time.
        steps: u32,
        two_terms: bool,
        paired: bool,
    }
}

/// A product of few rows on a GPU: its columns are read once, by lanes along k.
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
    /// A product unrolled by text.
    struct Unrolled {
        product: &'static str,
        /// Whether the lanes of a subgroup load together.
        subgroup: bool,
        /// Lanes of a tile.
        lanes: u32,
        /// Lanes of a workgroup.
        workgroup: u32,
        /// Columns of a tile.
        tile_cols: u32,
    }
}

constants! {
    /// What products of rows have beside [`Unrolled`].
    struct UnrolledRows {
        /// Rows of a lane.
        tile_rows: u32,
        /// Products that are added up: the second is LoRA's.
        terms: u32,
    }
}

constants! {
    /// What products along both rows have beside those.
    struct UnrolledForward {
        paired: bool,
        norm: bool,
    }
}

constants! {
    /// What a weight's gradient has beside [`Unrolled`].
    struct UnrolledWeight {
        /// Rows that lanes load at a time.
        k_step: u32,
    }
}

/// Lanes of a workgroup at most.
const WORKGROUP: u32 = 64;
/// Workgroups from which on they are made larger rather than more.
const ENOUGH_GROUPS: u32 = 64;

/// The workgroups for (rows, cols) results in such tiles, and the constants of the snippet.
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
    /// The tile for products of rows with (rows, …) results.
    fn of_rows(self, rows: Dim) -> UnrolledTile {
        let few = self.few_rows;
        if rows.max() <= few.lanes * few.rows { few } else { self.rows }
    }
}

fn unrolled_forward(tiles: UnrolledTiles, p: Forward) -> Shared {
    let tile = tiles.of_rows(p.rows);
    // Half of a tile's columns are each product's.
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
    /// A product by cooperative matrices.
    struct Cooperative {
        product: &'static str,
        cooperative: bool,
        lanes: u32,
        /// Rows and columns of a matrix, and whether they are 8.
        size: u32,
        eight: bool,
        /// Rows of a lane.
        tile_rows: u32,
        tile_cols: u32,
        /// Matrices of a tile.
        height: u32,
        width: u32,
        terms: u32,
        paired: bool,
        norm: bool,
    }
}

/// By cooperative matrices of this size. A tile has 2048 results at most, for the 16 KiB that workgroup memory has
/// everywhere.
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

/// The root-mean-square normalisation of a product's rows, computed on the way.
#[derive(Clone, Copy)]
pub(super) struct FusedNorm {
    /// What each column is weighed by.
    pub weight: Tensor,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// Whether rows of these lengths can be read four elements at a time.
pub(super) fn aligned(lengths: &[usize]) -> bool {
    lengths.iter().all(|n| n % 4 == 0)
}

constants! {
    struct LinearForward {
        lora: bool,
        bias: bool,
        residual: bool,
        add: bool,
    }
}

/// What [`launch_forward`] computes.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub x: Tensor,
    pub w: MatrixRows,
    /// Elements of x's rows that take part: all of them, or none for a result of zeros.
    pub inner: usize,
    /// Normalise x first.
    pub norm: Option<FusedNorm>,
    /// What the product is multiplied by.
    pub scale: f32,
    /// h, B, and the term's scale.
    pub lora: Option<(Tensor, Tensor, f32)>,
    /// (1, O): one for each of y's columns.
    pub bias: Option<Tensor>,
    pub residual: Option<Tensor>,
    pub y: Tensor,
    /// Whether the product is added to y.
    pub add: bool,
    /// The first column of y that is computed; of the residual alike.
    pub first_col: usize,
}

impl Product {
    /// Plainly x wᵀ.
    pub fn new(x: Tensor, w: MatrixRows, y: Tensor) -> Product {
        Product {
            x,
            w,
            inner: x.cols,
            norm: None,
            scale: 1.0,
            lora: None,
            bias: None,
            residual: None,
            y,
            add: false,
            first_col: 0,
        }
    }
}

pub(super) fn launch_forward(r: &mut Recorder, p: Product) {
    assert!(p.norm.is_none() || p.lora.is_none(), "a normalised product has no LoRA term of its own");
    let (inner, cols) = (p.inner, p.w.rows);
    let rank = p.lora.map_or(0, |(h, _, _)| h.cols);
    let terms = inner + rank;
    let along = aligned(&[p.x.cols, inner, rank]);
    let across = aligned(&[cols, p.y.cols, p.first_col]);
    let mut args = vec![read("x", p.x).rows(along), read("w", p.w.part).rows(along)];
    args.extend(p.norm.map(|norm| read("norm_weight", norm.weight).rows(along)));
    args.extend(p.lora.iter().flat_map(|(h, b, _)| [read("h", *h).rows(along), read("b", *b).rows(along)]));
    args.extend(p.bias.map(|t| read("bias", t).rows(across)));
    args.extend(p.residual.map(|t| read("residual", t).rows(across)));
    args.push(write("y", p.y).rows(across));
    let mut params: Vec<(&str, Word)> = vec![
        ("rows", p.x.rows.into()),
        ("inner", inner.into()),
        ("cols", cols.into()),
        ("stride", p.y.cols.into()),
        ("first_col", p.first_col.into()),
        ("first_row", p.w.first_row.into()),
        ("scale", p.scale.into()),
    ];
    if let Some((_, _, scale)) = p.lora {
        params.extend([("b_row", p.w.first.into()), ("rank", rank.into()), ("lora_scale", Word::F32(scale))]);
    }
    params.extend(p.norm.map(|norm| ("eps", Word::F32(norm.eps))));
    let kind = LinearForward {
        lora: p.lora.is_some(),
        bias: p.bias.is_some(),
        residual: p.residual.is_some(),
        add: p.add,
    };
    let forward = Forward {
        rows: p.x.rows,
        cols,
        format: p.w.part.format,
        two_terms: kind.lora,
        paired: false,
        norm: p.norm.is_some(),
    };
    let Shared { groups, mut constants } = along_both(r, forward);
    constants.extend(kind.list());
    r.launch(Launch {
        kernel: "linear_forward",
        constants,
        params,
        args,
        groups,
        work: Work { flops: 2.0 * (terms * cols) as f64, bytes: 4.0 * (terms + 2 * cols) as f64 },
    });
}

constants! {
    struct LinearBackwardInput {
        lora: bool,
        add: bool,
    }
}

/// dx = or += scale · dy w (+ g A), with the columns of dy from `first_col` on.
pub(super) fn launch_backward_input(
    r: &mut Recorder,
    dy: Tensor,
    first_col: usize,
    w: MatrixRows,
    scale: f32,
    lora: Option<(Tensor, Tensor)>,
    dx: GradientTarget,
) {
    let (inner, cols) = (w.rows, w.part.cols);
    let rank = lora.map_or(0, |(g, _)| g.cols);
    let terms = inner + rank;
    let along = aligned(&[inner, rank, dy.cols, first_col]);
    let across = aligned(&[cols]);
    let mut args = vec![read("dy", dy).rows(along), read("w", w.part).rows(across)];
    args.extend(lora.iter().flat_map(|(g, a)| [read("g", *g).rows(along), read("a", *a).rows(across)]));
    args.push(write("dx", dx.tensor).rows(across));
    let mut params: Vec<(&str, Word)> = vec![
        ("rows", dy.rows.into()),
        ("inner", inner.into()),
        ("cols", cols.into()),
        ("stride", dy.cols.into()),
        ("first_col", first_col.into()),
        ("first_row", w.first_row.into()),
        ("scale", scale.into()),
    ];
    params.extend(lora.map(|_| ("rank", rank.into())));
    let kind = LinearBackwardInput { lora: lora.is_some(), add: dx.accumulate == Accumulate::Add };
    let Shared { groups, mut constants } = along_left(r, dy.rows, cols, kind.lora);
    constants.extend(kind.list());
    r.launch(Launch {
        kernel: "linear_backward_input",
        constants,
        params,
        args,
        groups,
        work: Work { flops: 2.0 * (terms * cols) as f64, bytes: 4.0 * (terms + 2 * cols) as f64 },
    });
}

/// Slices of the rows that a weight gradient is summed over, so that a small matrix still fills the GPU.
const MAX_SLICES: u32 = 16;
/// Rows that make a slice worth its launch.
const SLICE_ROWS: u32 = 128;

constants! {
    struct LinearBackwardWeight {
        normalised: bool,
        add: bool,
    }
}

/// The rows of dw that belong to `w` = or += scale · dyᵀ x, with the columns of dy from `first_col` on. Where x stands
/// for its normalised rows, the norm's weight and the inverse root mean squares of the rows are given.
#[allow(clippy::too_many_arguments, reason = "the operands of one product")]
pub(super) fn launch_backward_weight(
    r: &mut Recorder,
    dy: Tensor,
    first_col: usize,
    x: Tensor,
    norm: Option<(Tensor, Tensor)>,
    scale: f32,
    w: MatrixRows,
    dw: GradientTarget,
) {
    let (out, cols) = (w.rows, x.cols);
    // Of a tile of its own, so that no choice of tiles changes how sums are shared out, and with it the last bits.
    let enough = r.busy().div_ceil((out.div_ceil(32) * cols.div_ceil(16)) as u32);
    let slices = x.rows.max().div_ceil(SLICE_ROWS).clamp(1, MAX_SLICES).min(enough);
    let partial = match slices {
        1 => dw.tensor,
        _ => r.tensor("dw slices", slices as usize * out, cols),
    };
    let kind = LinearBackwardWeight {
        normalised: norm.is_some(),
        add: slices == 1 && dw.accumulate == Accumulate::Add,
    };
    let Shared { groups, mut constants } = along_neither(r, out, cols, slices);
    constants.extend(kind.list());
    let down = aligned(&[out, dy.cols, first_col]);
    let across = aligned(&[cols]);
    let mut args: Vec<Arg> = vec![read("dy", dy).rows(down), read("x", x).rows(across)];
    args.extend(norm.iter().flat_map(|(weight, inverse)| {
        [read("inverse_rms", *inverse), read("norm_weight", *weight).rows(across)]
    }));
    args.push(write("dw", partial).rows(across));
    r.launch(Launch {
        kernel: "linear_backward_weight",
        constants,
        params: vec![
            ("rows", x.rows.into()),
            ("out", out.into()),
            ("cols", cols.into()),
            ("stride", dy.cols.into()),
            ("first_col", first_col.into()),
            ("first_row", if slices == 1 { w.first_row.into() } else { 0usize.into() }),
            ("slices", slices.into()),
            ("scale", scale.into()),
        ],
        args,
        groups,
        work: Work {
            flops: 2.0 * x.rows.max() as f64 * cols as f64,
            bytes: 4.0 * (x.rows.max() as f64 + cols as f64),
        },
    });
    if slices > 1 {
        let (len, first) = (out * cols, w.first_row * cols);
        r.sum_slices(Slices { x: partial, rows: Dim::Fixed(slices), share: 1, len, target: dw, first });
    }
}
