//! How the outputs of a matrix product divide among lanes, as shaders/shared/tile.wgsl has it.

use crate::gpu::{Arithmetic, Dim, Format, Groups, Recorder, Sharing, Tile, Tuning};

/// Lanes of a workgroup at most.
const GROUP: u32 = 64;
/// Workgroups from which on they are made larger rather than more.
const ENOUGH_GROUPS: u32 = 64;

/// The constants of kernels that have a row a lane in workgroups of 64, and work together in subgroups where the device
/// does well with text that is unrolled over their lanes.
pub(super) fn lanes(r: &Recorder) -> [(&'static str, u32); 4] {
    let subgroup = r.subgroup().filter(|_| r.tuning().unrolled_attention);
    let lanes = subgroup.unwrap_or(GROUP);
    [("LANES", lanes), ("SUBGROUP", subgroup.is_some() as u32), ("STAGED", 0), ("WHOLE", 0)]
}

/// The tile for products of rows with (rows, …) results.
pub(super) fn of_rows(r: &Recorder, rows: impl Into<Dim>) -> Tile {
    let Tuning { few_rows, rows: many, .. } = r.tuning();
    let tile = if rows.into().max() <= few_rows.lanes * few_rows.down { few_rows } else { many };
    let handed = tile.sharing != Sharing::Subgroup || tile.cols.is_multiple_of(tile.lanes);
    assert!(handed, "{tile}: every lane hands as many columns round");
    tile
}

/// The tile for products of rows with a matrix of this format, and the constants for how they are computed.
pub(super) fn of_product(
    r: &Recorder,
    rows: impl Into<Dim>,
    format: Format,
) -> (Tile, [(&'static str, u32); 2]) {
    let arithmetic = if format == Format::F16 { r.arithmetic() } else { Arithmetic::F32 };
    let tile = arithmetic.tile().unwrap_or_else(|| of_rows(r, rows));
    (tile, [("FORMAT", format.code()), ("HALF", (arithmetic != Arithmetic::F32) as u32)])
}

/// The workgroups for (rows, cols) outputs in such tiles, and the constants that the kernel needs.
pub(super) fn divide(
    r: &Recorder,
    tile: Tile,
    rows: impl Into<Dim>,
    cols: usize,
    aligned: bool,
) -> (Groups, Vec<(&'static str, u32)>) {
    let rows = rows.into();
    let height = tile.lanes * tile.down;
    let tiles = rows.max().div_ceil(height) * (cols as u32).div_ceil(tile.cols);
    let matrix = match tile.sharing {
        Sharing::Matrices(size) => size,
        _ => 0,
    };
    // Whether a tile is a whole workgroup, which waits for itself; else they are stacked, one below the other.
    let whole = tile.sharing == Sharing::Workgroup || matrix > 0;
    let most = match whole {
        true => 1,
        false => (GROUP / tile.lanes).min(rows.max().div_ceil(height).next_power_of_two()),
    };
    let stacked = 1 << (tiles / ENOUGH_GROUPS).clamp(1, most.max(1)).ilog2();
    // Where rows do not fill the least workgroup, tiles stand side by side.
    let abreast = match whole {
        true => 1,
        false => r.tuning().least_lanes.div_ceil(stacked * tile.lanes).next_power_of_two(),
    };
    let across = (cols as u32).div_ceil(tile.cols * abreast);
    let quads = tile.cols / 4;
    let mut constants = vec![
        ("SUBGROUP", (tile.sharing == Sharing::Subgroup) as u32),
        ("STAGED", (tile.sharing == Sharing::Workgroup) as u32),
        ("WHOLE", whole as u32),
        ("LANES", tile.lanes),
        ("GROUP", stacked * abreast * tile.lanes),
        ("ABREAST", abreast),
        ("DOWN", tile.down),
        ("COLS", tile.cols),
        ("QUADS", quads),
        ("PAIRS", quads / 2),
        ("TILE_SIZE", tile.down * quads),
        // Columns, or terms of a product of columns, that each lane loads or that go into a stage.
        ("SPREAD", (tile.cols / tile.lanes).max(1)),
        ("TERMS", if tile.sharing == Sharing::Nothing { 1 } else { tile.lanes / quads }),
        ("ALIGNED", aligned as u32),
    ];
    if matrix > 0 {
        constants.extend([
            ("COOPERATIVE", 1),
            ("EIGHT", (matrix == 8) as u32),
            ("SIZE", matrix),
            // Matrices of a tile.
            ("HEIGHT", height / matrix),
            ("WIDTH", tile.cols / matrix),
        ]);
    }
    (Groups::over(rows, height * stacked).times(across), constants)
}
