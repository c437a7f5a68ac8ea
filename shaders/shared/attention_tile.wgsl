// Tiles of TILE_ROWS x TILE_COLS scores, for the tiled attention kernels. A workgroup computes sums for the rows and
// loops over the columns: rows are queries and columns keys, but in attention_backward_key_value_tiled the other way
// round.
//
// LANES_ACROSS x LANES_DOWN lanes. A lane has 4 rows, down + 0..3 LANES_DOWN, as the components of a vector; of the
// scores it has the columns across + c LANES_ACROSS, and of the sums the vectors across + w LANES_ACROSS of a head.
//
// The kernel defines `fn row_vector(at: Tile, operand: u32, row: u32, w: u32)` and `col_vector`: vector w of a row or
// column of the tile (a column in 0..TILE_COLS), of the operand with that number.
const LANES_DOWN = TILE_ROWS / 4u;
const LANES = LANES_ACROSS * LANES_DOWN;
const COLS_PER_LANE = TILE_COLS / LANES_ACROSS;
const VECTORS_PER_LANE = (WIDTH + LANES_ACROSS - 1u) / LANES_ACROSS;
// Scores need CHUNK vectors of every row and column in workgroup memory at a time. An odd stride spreads them over the
// banks.
const CHUNK_STRIDE = CHUNK | 1u;
const CHUNK_COLS_AT = TILE_ROWS * CHUNK_STRIDE;
const CHUNK_SIZE = (TILE_ROWS + TILE_COLS) * CHUNK_STRIDE;
// Sums need the weights of all columns, in vectors of a lane's rows, and whole vectors of STAGED_COLS columns at a
// time. (Lanes beyond WIDTH read what follows, for sums that are not written.)
const STAGED_AT = TILE_COLS * LANES_DOWN;
const SUMS_SIZE = STAGED_AT + (STAGED_COLS - 1u) * WIDTH + VECTORS_PER_LANE * LANES_ACROSS;
var<workgroup> tile: array<vec4<f32>, max(LANES, max(CHUNK_SIZE, SUMS_SIZE))>;

// The position of the tile and of this lane's part.
struct Tile {
    lane: u32,
    across: u32,
    down: u32,
    first_row: u32,
    first_col: u32,
    head: u32,    // of queries
    kv_head: u32,
    seen: u32,    // bit c: whether any row attends to column c
    source: u32,  // the buffer of the columns
}

fn tile_at(lane: u32, first_row: u32, head: u32) -> Tile {
    return Tile(lane, lane % LANES_ACROSS, lane / LANES_ACROSS, first_row, 0u, head, head / SHARED, 0u, 0u);
}

// Row r of the lane's four rows.
fn lane_row(at: Tile, r: u32) -> u32 {
    return at.first_row + r * LANES_DOWN + at.down;
}

// Equals n, since there are rows, but compilers cannot know that. With such bounds, inner loops are not fully unrolled:
// unrolled, they spill on Intel (98 registers in the forward kernel, D 64) and are 3 times as long on NVIDIA.
fn unknown(n: u32) -> u32 {
    return n * min(extent(params.rows), 1u);
}

// The bound of a staging loop: with STAGE_TOGETHER, if there are enough registers, all loads of a lane are issued
// together.
fn staged(n: u32) -> u32 {
    if (STAGE_TOGETHER) {
        return n;
    }
    return unknown(n);
}

fn add_product(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

// scores[c], for the lane's rows, += row · column. `tile` is free before and after.
fn add_scores(scores: ptr<function, array<vec4<f32>, COLS_PER_LANE>>, at: Tile, operand: u32) {
    for (var first = 0u; first < WIDTH; first += CHUNK) {
        for (var k = 0u; k < staged(TILE_ROWS * CHUNK); k += LANES) {
            let i = k + at.lane;
            if (TILE_ROWS * CHUNK % LANES == 0u || i < TILE_ROWS * CHUNK) {
                let w = min(first + i % CHUNK, WIDTH - 1u);
                tile[i / CHUNK * CHUNK_STRIDE + i % CHUNK] = row_vector(at, operand, i / CHUNK, w);
            }
        }
        for (var k = 0u; k < staged(TILE_COLS * CHUNK); k += LANES) {
            let i = k + at.lane;
            if (TILE_COLS * CHUNK % LANES == 0u || i < TILE_COLS * CHUNK) {
                let w = min(first + i % CHUNK, WIDTH - 1u);
                tile[CHUNK_COLS_AT + i / CHUNK * CHUNK_STRIDE + i % CHUNK] = col_vector(at, operand, i / CHUNK, w);
            }
        }
        workgroupBarrier();
        let rows_at = at.down * CHUNK_STRIDE;
        let cols_at = at.across * CHUNK_STRIDE + CHUNK_COLS_AT;
        let end = unknown(min(CHUNK, WIDTH - first));
        for (var w = 0u; w < end; w++) {
            var cols: array<vec4<f32>, COLS_PER_LANE>;
            for (var c = 0u; c < COLS_PER_LANE; c++) {
                cols[c] = tile[cols_at + w + c * LANES_ACROSS * CHUNK_STRIDE];
            }
            for (var r = 0u; r < 4u; r++) {
                let row = tile[rows_at + w + r * LANES_DOWN * CHUNK_STRIDE];
                for (var c = 0u; c < COLS_PER_LANE; c++) {
                    (*scores)[c][r] = add_product(row, cols[c], (*scores)[c][r]);
                }
            }
        }
        workgroupBarrier();
    }
}

// sums[row][w] += Σ over columns of (weight of row and column) times the column's vector. `tile` is free before and
// after.
fn add_weighted(
    sums: ptr<function, array<array<vec4<f32>, VECTORS_PER_LANE>, 4>>,
    weights: array<vec4<f32>, COLS_PER_LANE>,
    at: Tile,
    operand: u32,
) {
    for (var c = 0u; c < COLS_PER_LANE; c++) {
        tile[at.across * LANES_DOWN + at.down + c * LANES_ACROSS * LANES_DOWN] = weights[c];
    }
    for (var first = 0u; first < TILE_COLS; first += STAGED_COLS) {
        for (var k = 0u; k < staged(STAGED_COLS * WIDTH); k += LANES) {
            let i = k + at.lane;
            if (STAGED_COLS * WIDTH % LANES == 0u || i < STAGED_COLS * WIDTH) {
                tile[STAGED_AT + i] = col_vector(at, operand, first + i / WIDTH, i % WIDTH);
            }
        }
        workgroupBarrier();
        let end = unknown(STAGED_COLS);
        for (var c = 0u; c < end; c++) {
            let weight = tile[(first + c) * LANES_DOWN + at.down];
            for (var w = 0u; w < VECTORS_PER_LANE; w++) {
                let col = tile[c * WIDTH + at.across + STAGED_AT + w * LANES_ACROSS];
                for (var r = 0u; r < 4u; r++) {
                    (*sums)[r][w] = fma(vec4(weight[r]), col, (*sums)[r][w]);
                }
            }
        }
        workgroupBarrier();
    }
}

// The sum over the lanes with the same rows, through `tile`, which is free before and after.
fn sum_across(at: Tile, v: vec4<f32>) -> vec4<f32> {
    tile[at.lane] = v;
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var i = 0u; i < LANES_ACROSS; i++) {
        sum += tile[at.down * LANES_ACROSS + i];
    }
    workgroupBarrier();
    return sum;
}

fn max_across(at: Tile, v: vec4<f32>) -> vec4<f32> {
    tile[at.lane] = v;
    workgroupBarrier();
    var largest = v;
    for (var i = 0u; i < LANES_ACROSS; i++) {
        largest = max(largest, tile[at.down * LANES_ACROSS + i]);
    }
    workgroupBarrier();
    return largest;
}

// For kernels whose rows are queries: the keys that they attend to, with which a workgroup skips tiles of keys to which
// none of its queries attends. Lane `lane` handles query `lane` of the tile. TILE_COLS is at most 32, the bits of a
// word.
// A query's tiles begin at multiples of TILE_COLS from the start of each of its two ranges (before a window shortens
// it); a tile that begins elsewhere belongs to another query. So its sums have the same order whatever else is in the
// batch.
var<workgroup> row_spans: array<vec4<u32>, TILE_ROWS>;
var<workgroup> row_origins: array<vec2<u32>, TILE_ROWS>;
var<workgroup> visible: array<u32, TILE_ROWS>;   // bit c of a query's word: whether it attends to column c
var<workgroup> visible_any: atomic<u32>;
var<workgroup> nearest: atomic<u32>;
var<workgroup> next_col: u32;

// The first key that the query attends to, from a row on.
fn next_key(span: vec4<u32>, from_row: u32) -> u32 {
    let first = max(from_row, span.x);
    let second = max(from_row, span.z);
    return min(select(NO_ROW, first, first < span.y), select(NO_ROW, second, second < span.w));
}

// The lowest n bits.
fn low_bits(n: u32) -> u32 {
    return select((1u << (n & 31u)) - 1u, 0xffffffffu, n >= 32u);
}

// Bit c: whether start <= first + c < end.
fn range_bits(start: u32, end: u32, first: u32) -> u32 {
    return low_bits(max(end, first) - first) & ~low_bits(max(start, first) - first);
}

// The first tile of a range, from a row on.
fn next_tile_of(start: u32, end: u32, origin: u32, from_row: u32) -> u32 {
    let tiles = max((start - origin) / TILE_COLS, (max(from_row, origin) - origin + TILE_COLS - 1u) / TILE_COLS);
    let first = origin + tiles * TILE_COLS;
    return select(NO_ROW, first, start < end && first < end);
}

fn next_tile(span: vec4<u32>, origins: vec2<u32>, from_row: u32) -> u32 {
    return min(
        next_tile_of(span.x, span.y, origins.x, from_row),
        next_tile_of(span.z, span.w, origins.y, from_row),
    );
}

// range_bits, if one of the range's tiles begins there.
fn tile_bits(start: u32, end: u32, origin: u32, first: u32) -> u32 {
    let begins = first >= origin && (first - origin) % TILE_COLS == 0u;
    return select(0u, range_bits(start, end, first), begins);
}

// Called before the first tile; `span` is that of row `lane`, `origins` the starts of its ranges without a window.
fn find_first(lane: u32, span: vec4<u32>, origins: vec2<u32>) {
    if (lane == 0u) {
        atomicStore(&visible_any, 0u);
        atomicStore(&nearest, NO_ROW);
    }
    workgroupBarrier();
    if (lane < TILE_ROWS) {
        row_spans[lane] = span;
        row_origins[lane] = origins;
        atomicMin(&nearest, next_tile(span, origins, 0u));
    }
    workgroupBarrier();
    find_next(lane);
}

// Sets `visible` for a tile; returns the keys to which any query attends.
fn find_visible(lane: u32, first_col: u32) -> u32 {
    if (lane < TILE_ROWS) {
        let span = row_spans[lane];
        let origins = row_origins[lane];
        let bits = (tile_bits(span.x, span.y, origins.x, first_col) | tile_bits(span.z, span.w, origins.y, first_col))
            & low_bits(TILE_COLS);
        visible[lane] = bits;
        atomicOr(&visible_any, bits);
        atomicMin(&nearest, next_tile(span, origins, first_col + 1u));
    }
    workgroupBarrier();
    return atomicLoad(&visible_any);
}

// Publishes the next tile to all lanes by their next barrier; there must have been a barrier since find_visible.
fn find_next(lane: u32) {
    if (lane == 0u) {
        next_col = atomicLoad(&nearest);
        atomicStore(&nearest, NO_ROW);
        atomicStore(&visible_any, 0u);
    }
}

// `visible` for the lane's rows.
fn lane_visible(at: Tile) -> vec4<u32> {
    return vec4(
        visible[at.down],
        visible[LANES_DOWN + at.down],
        visible[2u * LANES_DOWN + at.down],
        visible[3u * LANES_DOWN + at.down],
    );
}

// For each of the lane's rows, whether it attends to column c of the lane.
fn sees_col(at: Tile, visible: vec4<u32>, c: u32) -> vec4<bool> {
    return (visible & vec4(1u << (c * LANES_ACROSS + at.across))) != vec4(0u);
}

// The row of a column; if no query attends to it, that of the first column instead: its weight is 0, and its own row
// must not be read.
fn col_row(at: Tile, col: u32) -> u32 {
    return at.first_col + select(0u, col, (at.seen & (1u << col)) != 0u);
}
