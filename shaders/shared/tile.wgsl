// A tile of a product: LANES · DOWN rows by COLS columns, computed by LANES lanes together. A lane has DOWN of the rows,
// LANES apart; what it needs of the other operand it shares with the other lanes: in a subgroup each of them loads
// a part and hands it round. A workgroup of GROUP lanes has GROUP / LANES tiles, one below the other.
struct Tile { row: u32, col: u32 }

fn tile_of(group: u32, part: u32, cols: u32) -> Tile {
    let across = (cols + COLS - 1u) / COLS;
    return Tile((group / across * (GROUP / LANES) + part) * (LANES * DOWN), group % across * COLS);
}
