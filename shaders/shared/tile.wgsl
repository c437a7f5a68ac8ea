// A tile of 8 rows by 8 columns an invocation, in registers: lanes of a workgroup lie along the columns, then rows.
struct Tile { row: u32, col: u32 }

fn tile_of(group: u32, lane: u32, cols: u32) -> Tile {
    let across = (cols + 7u) / 8u;
    if (across >= 64u) {
        let groups = (across + 63u) / 64u;
        return Tile(group / groups * 8u, (group % groups * 64u + lane) * 8u);
    }
    let down = 64u / across;
    let row = select(0xffffffffu, (group * down + lane / across) * 8u, lane < down * across);
    return Tile(row, lane % across * 8u);
}
