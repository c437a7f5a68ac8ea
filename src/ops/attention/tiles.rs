//! Tiles of the attention kernels for GPUs, by head size: chosen so that GPU compilers keep the values in registers,
//! within 16 KiB of workgroup memory. `scripts/gpu-stats.sh` shows how the kernels compile.

use crate::gpu::shader::constants;

/// Workgroup memory that every GPU has, in bytes.
const WORKGROUP_MEMORY: u32 = 16 << 10;

constants! {
    /// A tile of scores in shared/attention_tile.wgsl. A workgroup computes sums for its rows: queries, or in
    /// attention_backward_key_value_tiled keys; it loops over the columns.
    pub(super) struct Tile {
        tile_rows: u32,
        tile_cols: u32,
        /// Lanes that share a row.
        lanes_across: u32,
        /// Vectors of a row or column that are staged at a time for scores.
        chunk: u32,
        /// Columns that are staged at a time for sums.
        staged_cols: u32,
        /// Whether all loads of a stage are issued together.
        stage_together: bool,
    }
}

/// The kernel that a tile is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TiledKernel {
    Forward,
    BackwardQuery,
    BackwardKeyValue,
}

impl Tile {
    /// The tile for heads of `dim` elements.
    pub fn of(kernel: TiledKernel, dim: u32) -> Tile {
        let (tile_rows, tile_cols, lanes_across, most, stage_together) = match kernel {
            TiledKernel::Forward if dim <= 96 => (64, 32, 8, 8, true),
            TiledKernel::Forward => (32, 32, 16, 8, true),
            TiledKernel::BackwardQuery if dim <= 64 => (64, 32, 8, 4, true),
            TiledKernel::BackwardQuery if dim <= 96 => (64, 24, 8, 4, true),
            TiledKernel::BackwardQuery if dim <= 128 => (32, 32, 16, 8, true),
            TiledKernel::BackwardQuery => (32, 16, 16, 8, true),
            TiledKernel::BackwardKeyValue if dim <= 64 => (32, 32, 16, 8, true),
            TiledKernel::BackwardKeyValue if dim <= 128 => (32, 32, 16, 8, false),
            TiledKernel::BackwardKeyValue => (16, 32, 32, 8, false),
        };
        // The fewest chunks, of equal size as far as possible.
        let width = dim / 4;
        let chunk = width.div_ceil(width.div_ceil(most));
        let least = Tile { tile_rows, tile_cols, lanes_across, chunk, staged_cols: 4, stage_together };
        // The most columns that need at most 1 KiB more than the scores.
        let room = WORKGROUP_MEMORY.min(least.workgroup_memory(kernel, dim) + 1024);
        let fits = |tile: &Tile| {
            tile_cols.is_multiple_of(tile.staged_cols) && tile.workgroup_memory(kernel, dim) <= room
        };
        let larger = [32, 16, 8].map(|staged_cols| Tile { staged_cols, ..least });
        larger.into_iter().find(fits).unwrap_or(least)
    }

    /// Bytes of workgroup memory, as declared in shared/attention_tile.wgsl and the kernel.
    fn workgroup_memory(&self, kernel: TiledKernel, dim: u32) -> u32 {
        let width = dim / 4;
        let lanes_down = self.tile_rows / 4;
        let stride = self.chunk | 1;
        let vectors_per_lane = width.div_ceil(self.lanes_across);
        let chunks = (self.tile_rows + self.tile_cols) * stride;
        let sums = self.tile_cols * lanes_down
            + (self.staged_cols - 1) * width
            + vectors_per_lane * self.lanes_across;
        let vectors = chunks.max(sums).max(self.lanes_across * lanes_down);
        let beside = match kernel {
            TiledKernel::Forward => self.tile_rows * 28,
            TiledKernel::BackwardQuery => self.tile_rows * 36,
            TiledKernel::BackwardKeyValue => self.tile_rows * 28 + self.tile_cols * 16,
        };
        vectors * 16 + beside + 16
    }
}

constants! {
    /// How attention_decode_split divides a row's keys.
    pub(super) struct DecodeTile {
        /// Query heads per workgroup, all reading the same kv head.
        heads_together: u32,
        lanes: u32,
        /// Keys that a lane processes at a time.
        keys_per_lane: u32,
    }
}

impl DecodeTile {
    /// The tile for heads of `dim` elements, where `shared` query heads read one kv head.
    pub fn of(shared: u32, dim: u32) -> DecodeTile {
        let heads_together = (1..=8).rev().find(|heads| shared.is_multiple_of(*heads)).expect("one divides");
        let width = dim / 4;
        // The smallest number of lanes of which 90 % hold a vector of a head; otherwise the one with the largest such
        // share.
        let busy = |lanes: &u32| lanes / width * width * 100 / lanes;
        let options = [64, 96, 128, 160];
        let lanes = options.into_iter().find(|lanes| busy(lanes) >= 90);
        let lanes = lanes.unwrap_or_else(|| options.into_iter().max_by_key(busy).expect("options"));
        let tile = |keys_per_lane| DecodeTile { heads_together, lanes, keys_per_lane };
        let most = if heads_together <= 4 { 4 } else { 2 };
        let fits = |tile: &DecodeTile| tile.workgroup_memory(dim) <= WORKGROUP_MEMORY;
        (1..=most).rev().map(tile).find(fits).unwrap_or_else(|| tile(1))
    }

    fn workgroup_memory(&self, dim: u32) -> u32 {
        let width = dim / 4;
        let (slots, heads) = (self.lanes / width, self.heads_together);
        heads * width * 16
            + slots * self.keys_per_lane * heads * (width | 1) * 4
            + slots * heads * 8
            + slots * width * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_size_fits_workgroup_memory() {
        for dim in (8..=256).step_by(8) {
            for kernel in [TiledKernel::Forward, TiledKernel::BackwardQuery, TiledKernel::BackwardKeyValue] {
                let tile = Tile::of(kernel, dim);
                let bytes = tile.workgroup_memory(kernel, dim);
                assert!(bytes <= WORKGROUP_MEMORY, "{kernel:?} D {dim}: {tile:?} takes {bytes} bytes");
                assert!(tile.tile_cols.is_multiple_of(tile.staged_cols), "{tile:?}");
            }
            for shared in 1..=16 {
                let tile = DecodeTile::of(shared, dim);
                assert!(tile.workgroup_memory(dim) <= WORKGROUP_MEMORY, "D {dim}, {shared} heads: {tile:?}");
            }
        }
    }
}
