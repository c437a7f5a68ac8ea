//! How the outputs of a matrix product divide among lanes, as shaders/shared/tile.wgsl has it.

use crate::gpu::{Dim, Groups, Recorder};

/// The shape of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Lanes that compute a tile together.
    lanes: u32,
    /// Whether they are a subgroup.
    subgroup: bool,
    /// Rows of a lane.
    down: u32,
    /// Columns.
    cols: u32,
}

/// Lanes of a workgroup at most.
const GROUP: u32 = 64;
/// Workgroups from which on they are made larger rather than more.
const ENOUGH_GROUPS: u32 = 64;

/// The constants of kernels that have a row a lane in workgroups of 64, and work together in subgroups where there are.
pub(super) fn lanes(r: &Recorder) -> [(&'static str, u32); 2] {
    [("LANES", r.subgroup().unwrap_or(GROUP)), ("SUBGROUP", r.subgroup().is_some() as u32)]
}

impl Tile {
    /// For products in which the lanes load the columns' operand: 64 sums a lane, and no fewer columns than lanes.
    pub fn wide(r: &Recorder) -> Tile {
        let lanes = r.subgroup().unwrap_or(8);
        let cols = lanes.max(16);
        Tile { lanes, subgroup: r.subgroup().is_some(), down: 64 / cols, cols }
    }

    /// For products of columns: four consecutive rows and 16 columns a lane.
    pub fn square(r: &Recorder) -> Tile {
        Tile { lanes: r.subgroup().unwrap_or(8), subgroup: r.subgroup().is_some(), down: 4, cols: 16 }
    }

    /// The workgroups for (rows, cols) outputs, and the constants that the kernel needs.
    pub fn over(
        &self,
        rows: impl Into<Dim>,
        cols: usize,
        aligned: bool,
    ) -> (Groups, Vec<(&'static str, u32)>) {
        let rows = rows.into();
        let (height, across) = (self.lanes * self.down, (cols as u32).div_ceil(self.cols));
        let tiles = rows.max().div_ceil(height) * across;
        let most = (GROUP / self.lanes).min(rows.max().div_ceil(height).next_power_of_two());
        let stacked = (tiles / ENOUGH_GROUPS).clamp(1, most.max(1));
        let stacked = 1 << stacked.ilog2();
        let quads = self.cols / 4;
        let constants = vec![
            ("LANES", self.lanes),
            ("SUBGROUP", self.subgroup as u32),
            ("GROUP", stacked * self.lanes),
            ("DOWN", self.down),
            ("COLS", self.cols),
            ("QUADS", quads),
            ("PAIRS", quads / 2),
            ("TILE_SIZE", self.down * quads),
            ("SPREAD", self.cols / self.lanes),
            ("TERMS", self.lanes / quads),
            ("ALIGNED", aligned as u32),
        ];
        (Groups::over(rows, height * stacked).times(across), constants)
    }
}
