// A product of few rows, limited by reading the columns once: y[row, col] = Σ_term Σ_k left · right. The kernel defines
// the functions that product_tiled requires: rows, cols, inner, left and right, both along k, and finish, or with
// PAIRED finish_pair. They are called under the same conditions; `multiply` replaces elements beyond the end of k by 0.
//
// A workgroup computes ROWS × COLS sums, with PAIRED half of the columns for each product. Its 64 lanes divide k,
// adjacent lanes processing adjacent vectors; a lane loads STEPS · COLS vectors of columns at a time. At the end the
// sums of the lanes are added in workgroup memory.
const LANES = 64u;
const QUADS = COLS / 4u;
const SUMS = ROWS * QUADS;
const PAIR_QUADS = select(QUADS, QUADS / 2u, PAIRED);
// Columns of y per workgroup.
const WIDTH = 4u * PAIR_QUADS;
// The number of parts of each sum after the first stage of adding.
const PARTS = 8u;

var<workgroup> parts: array<vec4<f32>, SUMS * LANES>;

struct Tile { row: u32, col: u32 }
// Sums of columns 4 q to 4 q + 3 of row r are at r · QUADS + q.
struct Sums { quads: array<vec4<f32>, SUMS> }

// The index of the workgroup's column c, for `right`.
fn column(tile: Tile, c: u32) -> u32 {
    let second = PAIRED && c >= WIDTH;
    let col = min(tile.col + select(c, c - WIDTH, second), cols() - 1u);
    return select(col, col + cols(), second);
}

// Elements from k on; those from `end` on are 0.
fn cut(v: vec4<f32>, k: u32, end: u32) -> vec4<f32> {
    return select(vec4<f32>(), v, vec4(k, k + 1u, k + 2u, k + 3u) < vec4(end));
}

fn multiply(sums: ptr<function, Sums>, tile: Tile, lane: u32, term: u32) {
    let end = inner(term);
    for (var first = 0u; first < end; first += STEPS * LANES * 4u) {
        var columns: array<vec4<f32>, STEPS * COLS>;
        for (var s = 0u; s < STEPS; s++) {
            let k = first + (s * LANES + lane) * 4u;
            for (var c = 0u; c < COLS; c++) {
                columns[s * COLS + c] = cut(right(term, column(tile, c), min(k, (end - 1u) / 4u * 4u)), k, end);
            }
        }
        for (var s = 0u; s < STEPS; s++) {
            let k = first + (s * LANES + lane) * 4u;
            for (var r = 0u; r < ROWS; r++) {
                let l = cut(left(term, min(tile.row + r, rows() - 1u), min(k, (end - 1u) / 4u * 4u)), k, end);
                for (var c = 0u; c < COLS; c++) {
                    let v = columns[s * COLS + c];
                    let at = r * QUADS + c / 4u;
                    let sum = (*sums).quads[at][c % 4u];
                    (*sums).quads[at][c % 4u] = fma(l.w, v.w, fma(l.z, v.z, fma(l.y, v.y, fma(l.x, v.x, sum))));
                }
            }
        }
    }
}

// Adds every eighth of the lanes' parts, so that eight parts of each sum are left.
fn add_parts(lane: u32) {
    for (var i = lane; i < SUMS * PARTS; i += LANES) {
        let first = i / PARTS * LANES + i % PARTS;
        var sum = vec4<f32>();
        for (var p = 0u; p < LANES; p += PARTS) {
            sum += parts[first + p];
        }
        parts[first] = sum;
    }
}

fn total(i: u32) -> vec4<f32> {
    var sum = vec4<f32>();
    for (var p = 0u; p < PARTS; p++) {
        sum += parts[i * LANES + p];
    }
    return sum;
}

@compute @workgroup_size(LANES)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    // Workgroups with the same columns are consecutive, so that the later ones find in the cache what the first has
    // read.
    let down = (rows() + ROWS - 1u) / ROWS;
    let across = (cols() + WIDTH - 1u) / WIDTH;
    if (group >= min(down * across, step.end)) {
        return;
    }
    let tile = Tile(group % down * ROWS, group / down * WIDTH);
    var sums: Sums;
    multiply(&sums, tile, lane, 0u);
//#if TWO_TERMS
    multiply(&sums, tile, lane, 1u);
//#end
    for (var i = 0u; i < SUMS; i++) {
        parts[i * LANES + lane] = sums.quads[i];
    }
    workgroupBarrier();
    add_parts(lane);
    workgroupBarrier();
    let row = tile.row + lane / PAIR_QUADS;
    let col = tile.col + lane % PAIR_QUADS * 4u;
    let at = lane / PAIR_QUADS * QUADS + lane % PAIR_QUADS;
    if (lane < ROWS * PAIR_QUADS && row < rows() && col < cols()) {
//#if PAIRED
        finish_pair(row, col, total(at), total(at + PAIR_QUADS));
//#else
        finish(row, col, total(at));
//#end
    }
}
