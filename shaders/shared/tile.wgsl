// A tile of a product: LANES · DOWN rows by COLS columns, computed by LANES lanes together. A lane has DOWN of the rows,
// LANES apart. What it needs of the other operand it shares with the others: in a subgroup each loads a part and hands
// it round; a workgroup puts a stage of 64 vectors into its memory; else each loads all of it. A workgroup of GROUP lanes
// has GROUP / LANES tiles: ABREAST side by side, the rest below them.
struct Tile { row: u32, col: u32 }

// A tile beyond the last column has a row beyond all rows.
fn tile_of(group: u32, part: u32, cols: u32) -> Tile {
    let across = (cols + ABREAST * COLS - 1u) / (ABREAST * COLS);
    let below = group / across * (GROUP / LANES / ABREAST) + part / ABREAST;
    let col = (group % across * ABREAST + part % ABREAST) * COLS;
    return Tile(select(0xffffffffu, below * (LANES * DOWN), col < cols), col);
}
//#if STAGED
var<workgroup> stage: array<vec4<f32>, 64>;
//#if HALF
var<workgroup> half_stage: array<vec4<f16>, 64>;
//#end
//#end
//#if COOPERATIVE
//#include cooperative
//#end
