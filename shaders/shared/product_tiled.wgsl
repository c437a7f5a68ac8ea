// A product of many rows: y[row, col] = Σ_term Σ_k left(term, row, k) · right(term, col, k).
//
// The kernel defines what is multiplied and where the result goes:
//   fn rows() -> u32, fn cols() -> u32                  the extents of y
//   fn inner(term: u32) -> u32                          the extent of k: of term 0 and with TWO_TERMS of term 1
//   fn left(term: u32, row: u32, k: u32) -> vec4<f32>   LEFT_ALONG_K: k to k + 3 of a row, else rows row to row + 3 at k
//   fn right(term: u32, col: u32, k: u32) -> vec4<f32>  RIGHT_ALONG_K: k to k + 3 of a column, else columns col to col + 3
//   fn finish(row: u32, col: u32, sums: vec4<f32>)      receives columns col to col + 3 of a row
// PAIRED: two products with equal numbers of columns. For `right`, column c of the second is cols() + c. Instead of finish:
//   fn finish_pair(row: u32, col: u32, first: vec4<f32>, second: vec4<f32>)
// SPLIT: k is divided into slices, which reduce_slices sums. Instead of finish:
//   fn slices() -> u32, fn finish_slice(slice: u32, row: u32, col: u32, sums: vec4<f32>)
//
// They are called only for existing elements: row < rows(), col < cols(), k < inner(term); where four elements are read
// along an extent, with a multiple of four. Some of the four may be beyond the end: their values do not matter, but
// reading them must be allowed. `put` replaces those beyond the end of k by 0; sums of rows or columns beyond the end
// are dropped.
//
// A workgroup computes a tile of TILE_ROWS × TILE_COLS, a lane LANE_ROWS × LANE_COLS of it: quads of rows and of
// columns, spaced by the number of lanes. DEPTH of k at a time, the tile's part of the operands is staged in workgroup
// memory: for each k the quads of its rows, and those of its columns.
const LEFT = 0u;
const RIGHT = 1u;
const LEFT_QUADS = TILE_ROWS / 4u;
const RIGHT_QUADS = TILE_COLS / 4u;
const LANES_DOWN = TILE_ROWS / LANE_ROWS;
const LANES_ACROSS = TILE_COLS / LANE_COLS;
const LANES = LANES_DOWN * LANES_ACROSS;
const LANE_QUADS = LANE_COLS / 4u;
const PAIR_QUADS = select(LANE_QUADS, LANE_QUADS / 2u, PAIRED);
// Columns of y per tile.
const TILE_WIDTH = select(TILE_COLS, TILE_COLS / 2u, PAIRED);
// The operands are fetched in blocks of four rows or columns by four k: the number of blocks, and the number per lane.
const LEFT_BLOCKS = LEFT_QUADS * DEPTH / 4u;
const RIGHT_BLOCKS = RIGHT_QUADS * DEPTH / 4u;
const LANE_LEFT_BLOCKS = (LEFT_BLOCKS + LANES - 1u) / LANES;
const LANE_BLOCKS = LANE_LEFT_BLOCKS + (RIGHT_BLOCKS + LANES - 1u) / LANES;
// After every four k of a stage there is a gap, so that lanes that write the same rows, four k apart, use different
// banks.
const GAP = 32u / DEPTH;
const LEFT_STAGE = DEPTH * LEFT_QUADS + DEPTH / 4u * GAP;
const RIGHT_STAGE = DEPTH * RIGHT_QUADS + DEPTH / 4u * GAP;
// Consecutive workgroups go down this many tiles before the next columns: those that run at the same time then share
// rows as well as columns, and the cache holds both.
const BAND = 8u;

var<workgroup> stage: array<vec4<f32>, LEFT_STAGE + RIGHT_STAGE>;

struct Tile { row: u32, col: u32, slice: u32 }
// A block of an operand: its rows or columns from 4 quad on, its k from k on, relative to the tile and the stage.
struct Block { operand: u32, quad: u32, k: u32, exists: bool }
struct Sums { quads: array<vec4<f32>, LANE_ROWS * LANE_QUADS> }

fn tiles_down() -> u32 {
    return (rows() + TILE_ROWS - 1u) / TILE_ROWS;
}

fn tiles_across() -> u32 {
    return (cols() + TILE_WIDTH - 1u) / TILE_WIDTH;
}

fn tile_of(group: u32) -> Tile {
    let tiles = tiles_down() * tiles_across();
    let i = group % tiles;
    let band = i / (BAND * tiles_across()) * BAND;
    let height = min(BAND, tiles_down() - band);
    let within = i - band * tiles_across();
    return Tile((band + within % height) * TILE_ROWS, within / height * TILE_WIDTH, group / tiles);
}

// Index of the first of the last four of n elements.
fn last_quad(n: u32) -> u32 {
    return (n - 1u) / 4u * 4u;
}

fn along_k(operand: u32) -> bool {
    return select(LEFT_ALONG_K, RIGHT_ALONG_K, operand == RIGHT);
}

// The i-th block that a lane fetches. Adjacent lanes read adjacent vectors of memory.
fn block_of(i: u32, lane: u32) -> Block {
    let operand = select(LEFT, RIGHT, i >= LANE_LEFT_BLOCKS);
    let index = (i - operand * LANE_LEFT_BLOCKS) * LANES + lane;
    let blocks = select(LEFT_BLOCKS, RIGHT_BLOCKS, operand == RIGHT);
    let exists = blocks % LANES == 0u || index < blocks;
    if (along_k(operand)) {
        return Block(operand, index / (DEPTH / 4u), index % (DEPTH / 4u) * 4u, exists);
    }
    let quads = select(LEFT_QUADS, RIGHT_QUADS, operand == RIGHT);
    return Block(operand, index % quads, index / quads * 4u, exists);
}

// Four elements of a block: along k, those of its i-th row or column from k on; otherwise those of all four at k.
fn load(block: Block, term: u32, tile: Tile, i: u32, k: u32) -> vec4<f32> {
    if (block.operand == LEFT) {
        let row = tile.row + block.quad * 4u;
        return left(term, select(min(row, last_quad(rows())), min(row + i, rows() - 1u), LEFT_ALONG_K), k);
    }
    // With PAIRED, the second half of a tile has the same columns as the first, from the other product.
    let second = PAIRED && block.quad >= RIGHT_QUADS / 2u;
    let col = tile.col + 4u * select(block.quad, block.quad - RIGHT_QUADS / 2u, second);
    let within = select(min(col, last_quad(cols())), min(col + i, cols() - 1u), RIGHT_ALONG_K);
    return right(term, select(within, within + cols(), second), k);
}

// A block of the stage from k = first on: one quad per k. Quads from k = end on are undefined.
fn fetch(block: Block, term: u32, tile: Tile, first: u32, end: u32) -> mat4x4<f32> {
    let k = first + block.k;
    var quads: mat4x4<f32>;
    for (var i = 0u; i < 4u; i++) {
        quads[i] = load(block, term, tile, i, select(min(k + i, end - 1u), min(k, last_quad(end)), along_k(block.operand)));
    }
    if (along_k(block.operand)) {
        return transpose(quads);
    }
    return quads;
}

// The position of a quad of an operand in the stage.
fn place(operand: u32, quad: u32, k: u32) -> u32 {
    if (operand == LEFT) {
        return k * LEFT_QUADS + k / 4u * GAP + quad;
    }
    return LEFT_STAGE + k * RIGHT_QUADS + k / 4u * GAP + quad;
}

// Writes a block to the stage; of its k, `depth` exist, and the others are written as 0.
fn put(block: Block, quads: mat4x4<f32>, depth: u32) {
    var kept = quads;
    if (depth < DEPTH) {
        for (var i = 0u; i < 4u; i++) {
            kept[i] = select(vec4<f32>(), quads[i], block.k + i < depth);
        }
    }
    for (var i = 0u; i < 4u; i++) {
        stage[place(block.operand, block.quad, block.k + i)] = kept[i];
    }
}

// Adds the k from begin to end of a term.
fn multiply(sums: ptr<function, Sums>, tile: Tile, lane: u32, term: u32, begin: u32, end: u32) {
    for (var k = begin; k < end; k += DEPTH) {
        // All loads are issued before the first is waited for.
        var quads: array<mat4x4<f32>, LANE_BLOCKS>;
        for (var i = 0u; i < LANE_BLOCKS; i++) {
            let block = block_of(i, lane);
            if (block.exists) {
                quads[i] = fetch(block, term, tile, k, end);
            }
        }
        workgroupBarrier();
        for (var i = 0u; i < LANE_BLOCKS; i++) {
            let block = block_of(i, lane);
            if (block.exists) {
                put(block, quads[i], end - k);
            }
        }
        workgroupBarrier();
        multiply_stage(sums, lane);
    }
}

fn multiply_stage(sums: ptr<function, Sums>, lane: u32) {
    for (var k = 0u; k < DEPTH; k++) {
        var r: array<vec4<f32>, LANE_QUADS>;
        for (var j = 0u; j < LANE_QUADS; j++) {
            r[j] = stage[place(RIGHT, j * LANES_ACROSS + lane % LANES_ACROSS, k)];
        }
        for (var h = 0u; h < LANE_ROWS / 4u; h++) {
            let l = stage[place(LEFT, h * LANES_DOWN + lane / LANES_ACROSS, k)];
            for (var i = 0u; i < 4u; i++) {
                for (var j = 0u; j < LANE_QUADS; j++) {
                    let at = (h * 4u + i) * LANE_QUADS + j;
                    (*sums).quads[at] = fma(vec4(l[i]), r[j], (*sums).quads[at]);
                }
            }
        }
    }
}

// Passes two of a lane's rows to the kernel, through workgroup memory: the sums stay in registers only if all their
// indices are constants, and a compiler may not unroll a loop around a long `finish`.
fn finish_rows(sums: ptr<function, Sums>, tile: Tile, lane: u32, first: u32) {
    for (var i = 0u; i < 2u * LANE_QUADS; i++) {
        stage[i * LANES + lane] = (*sums).quads[first * LANE_QUADS + i];
    }
    let top = tile.row + (first / 4u * LANES_DOWN + lane / LANES_ACROSS) * 4u + first % 4u;
    for (var row = top; row < min(top + 2u, rows()); row++) {
        for (var j = 0u; j < PAIR_QUADS; j++) {
            let col = tile.col + (j * LANES_ACROSS + lane % LANES_ACROSS) * 4u;
            let at = ((row - top) * LANE_QUADS + j) * LANES + lane;
            if (col < cols()) {
//#if PAIRED
                finish_pair(row, col, stage[at], stage[at + PAIR_QUADS * LANES]);
//#else
//#if SPLIT
                finish_slice(tile.slice, row, col, stage[at]);
//#else
                finish(row, col, stage[at]);
//#end
//#end
            }
        }
    }
}

@compute @workgroup_size(LANES)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
//#if SPLIT
    let groups = tiles_down() * tiles_across() * slices();
//#else
    let groups = tiles_down() * tiles_across();
//#end
    if (group >= min(groups, step.end)) {
        return;
    }
    let tile = tile_of(group);
    var sums: Sums;
//#if SPLIT
    // A slice is a whole number of stages; the last slices may be shorter, or empty.
    let share = (inner(0u) + slices() * DEPTH - 1u) / (slices() * DEPTH) * DEPTH;
    multiply(&sums, tile, lane, 0u, tile.slice * share, min(inner(0u), (tile.slice + 1u) * share));
//#else
    multiply(&sums, tile, lane, 0u, 0u, inner(0u));
//#end
//#if TWO_TERMS
    multiply(&sums, tile, lane, 1u, 0u, inner(1u));
//#end
    workgroupBarrier();
    finish_rows(&sums, tile, lane, 0u);
    finish_rows(&sums, tile, lane, 2u);
    if (LANE_ROWS == 8u) {
        finish_rows(&sums, tile, lane, 4u);
        finish_rows(&sums, tile, lane, 6u);
    }
}
