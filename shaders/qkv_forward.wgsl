// qkv_forward: queries, keys and values of the normalised rows, the former two turned by their positions' angles
// (Su et al. 2021, arXiv 2104.09864): y = (x inv gain) wᵀ (+ addend), inv = 1 / sqrt(mean(x²) + eps).
//   x (N, C)  w (O', C)  gain (C)  spans (N, 4)  table (positions, DIM): cosines, then sines  addend (N, O)
//   ->   qkv (N, O)  =   inv (N)  =
//   or, if CACHE,   q (N, HEADS DIM)  =   kv (M, 2 KV_HEADS DIM)  = at the row of the query's last key
// O = (HEADS + 2 KV_HEADS) DIM: all queries, all keys, all values. A row's position is the number of keys before its
// own, the last; a row without keys writes no cache row.
struct Params {
    rows: u32,
    inner: u32,
    cols: u32,      // columns computed here, whole heads: rows of w from first_row on
    first_col: u32, // the first of them of all O
    first_row: u32,
    before: u32,    // keys that all rows see before those of their spans
    eps: f32,
}
//#include element
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> w: array<Weight>;
@group(0) @binding(3) var<storage, read> gain: array<Element>;
@group(0) @binding(4) var<storage, read> spans: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> table: array<vec4<f32>>;
//#if ADDEND
@group(0) @binding(6) var<storage, read> addend: array<vec4<f32>>;
//#end
@group(0) @binding(6 + ADDEND) var<storage, read_write> q: array<vec4<f32>>;
//#if CACHE
@group(0) @binding(7 + ADDEND) var<storage, read_write> kv: array<vec4<f32>>;
//#end
//#if KEEP
@group(0) @binding(7 + ADDEND + CACHE) var<storage, read_write> inv: array<f32>;
//#end
//#include step
//#include tile
//#include load NAME=x
//#include load_weight NAME=w
//#include load NAME=gain
//#include spans

const OUTPUTS = (HEADS + 2u * KV_HEADS) * DIM;

// The column, of those computed here, of quad i of a tile. The first half of its quads and the second pair up: they are
// half a head apart.
fn column(tile_col: u32, i: u32) -> u32 {
    let pair = min(tile_col / 8u + i % (QUADS / 2u), params.cols / 8u - 1u);
    return pair / (DIM / 8u) * DIM + pair % (DIM / 8u) * 4u + i / (QUADS / 2u) * (DIM / 2u);
}

fn w_row(tile_col: u32, c: u32) -> u32 {
    return params.first_row + column(tile_col, c / 4u) + c % 4u;
}

fn store(n: u32, span: vec4<u32>, col: u32, value: vec4<f32>) {
//#if CACHE
    if (col < HEADS * DIM) {
        q[(n * HEADS * DIM + col) / 4u] = value;
    } else if (key_count(span) > 0u) {
        kv[((span.w - 1u) * 2u * KV_HEADS * DIM + col - HEADS * DIM) / 4u] = value;
    }
//#else
    q[(n * OUTPUTS + col) / 4u] = value;
//#end
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
//#include tile_lane
    let group = group_index(id, count);
    let rows = extent(params.rows);
    let tile = tile_of(group, part, params.cols);
    if (group >= step.end || tile.row >= rows) {
        return;
    }
//#include tile_rows
//#include product_weight LEFT=x RIGHT=w ROW=w_row INNER=params.inner
//#include normalise
//#for a in DOWN
    if (row${a} < rows) {
        let span = spans[row${a}];
        let angles = (extent(params.before) + max(key_count(span), 1u) - 1u) * (DIM / 4u);
//#for i in PAIRS
        if (tile.col / 8u + ${i}u < params.cols / 8u) {
            let at = column(tile.col, ${i}u);
            let col = params.first_col + at;
            var low = acc[${a}u * QUADS + ${i}u];
            var high = acc[${a}u * QUADS + PAIRS + ${i}u];
//#if ADDEND
            low += addend[(row${a} * OUTPUTS + col) / 4u];
            high += addend[(row${a} * OUTPUTS + col + DIM / 2u) / 4u];
//#end
            if (col < (HEADS + KV_HEADS) * DIM) {
                let cosine = table[angles + at % DIM / 4u];
                let sine = table[angles + at % DIM / 4u + DIM / 8u];
                let turned = low * cosine - high * sine;
                high = high * cosine + low * sine;
                low = turned;
            }
            store(row${a}, span, col, low);
            store(row${a}, span, col + DIM / 2u, high);
        }
//#end
    }
//#end
}
