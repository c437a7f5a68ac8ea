// attention_backward_key_value_tiled: gradients of keys and values, one tile of keys and one kv head per workgroup.
//   qkv (N, (HEADS + 2 KV_HEADS) DIM)  spans (N, 4)  ends (N)  dout (N, HEADS DIM)  stats (N, HEADS) pairs: (lse, delta) by
//   attention_backward_query_tiled   ->   dqkv, as qkv: its keys and values  =
// dk_j = scale Σ ds q,  dv_j = Σ p dout over the queries that attend to key j, all among the rows j to ends_j, and the
// SHARED heads that read the key;  ds = p (dout·v_j - delta),  p = exp(s - lse),  s = scale q·k_j
// (SOFT_CAP: s = soft_cap tanh(scale q·k_j / soft_cap), ds times 1 - (s / soft_cap)²; WINDOW: a query attends to its
// last `window` keys)
//#include attention
//#include attention_tile
const QUERIES = 0u;
const OUTPUTS = 1u;
// The spans of the tile's queries.
var<workgroup> query_spans: array<vec4<u32>, TILE_COLS>;
//#if WINDOW
var<workgroup> any_seen: u32;
//#end

// The rows of the keys, or with the gradients of outputs those of the values.
fn row_vector(at: Tile, operand: u32, row: u32, w: u32) -> vec4<f32> {
    let j = min(at.first_row + row, extent(params.rows) - 1u);
    return qkv[j * KV_STRIDE + select(KEYS_AT, VALUES_AT, operand == OUTPUTS) + at.kv_head * WIDTH + w];
}

// The rows of the queries, or of the gradients of their outputs.
fn col_vector(at: Tile, operand: u32, col: u32, w: u32) -> vec4<f32> {
    let n = min(at.first_col + col, extent(params.rows) - 1u);
    if (operand == OUTPUTS) {
        return dout[(n * HEADS + at.head) * WIDTH + w];
    }
    return qkv[n * Q_STRIDE + at.head * WIDTH + w];
}

fn span_of(n: u32) -> vec4<u32> {
    if (n >= extent(params.rows)) {
        return vec4<u32>();
    }
    let span = seen_keys(spans[n]);
    return span;
}

// For each of the lane's four keys, whether a query attends to it.
fn seen_by(at: Tile, span: vec4<u32>) -> vec4<bool> {
    return vec4(
        sees(span, lane_row(at, 0u)),
        sees(span, lane_row(at, 1u)),
        sees(span, lane_row(at, 2u)),
        sees(span, lane_row(at, 3u)),
    );
}

@compute @workgroup_size(LANES)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let rows = extent(params.rows);
    let first_row = group / KV_HEADS * TILE_ROWS;
    let kv_head = group % KV_HEADS;
    if (group >= step.end || first_row >= rows) {
        return;
    }
    var at = tile_at(lane, first_row, kv_head * SHARED);
    var to_key: array<array<vec4<f32>, VECTORS_PER_LANE>, 4>;
    var to_value: array<array<vec4<f32>, VECTORS_PER_LANE>, 4>;
    // Lane `lane` handles key `lane` of the tile: the queries that may attend to it.
    let key = first_row + at.lane;
    var queries = vec4<u32>();
    if (at.lane < TILE_ROWS && key < rows) {
        queries = vec4(key, min(ends[key], rows), 0u, 0u);
    }
    find_first(at.lane, queries, queries.xz);
    loop {
        let first_col = workgroupUniformLoad(&next_col);
        if (first_col == NO_ROW) {
            break;
        }
        at.first_col = first_col;
        if (at.lane < TILE_COLS) {
            let span = span_of(first_col + at.lane);
            query_spans[at.lane] = span;
//#if WINDOW
            atomicOr(&visible_any, u32(next_key(span, first_row) < first_row + TILE_ROWS));
//#end
        }
        if (at.lane < TILE_ROWS) {
            atomicMin(&nearest, next_key(row_spans[at.lane], first_col + TILE_COLS));
        }
        workgroupBarrier();
//#if WINDOW
        // The windows of later queries in a long sequence do not reach back to these keys.
        if (at.lane == 0u) {
            any_seen = atomicLoad(&visible_any);
        }
        if (workgroupUniformLoad(&any_seen) == 0u) {
            find_next(at.lane);
            continue;
        }
//#end
        // Not unrolled, otherwise it spills on Intel.
        for (var shared_head = 0u; shared_head < unknown(SHARED); shared_head++) {
            at.head = kv_head * SHARED + shared_head;
            var weights = array<vec4<f32>, COLS_PER_LANE>();
            add_scores(&weights, at, QUERIES);
            var ds = array<vec4<f32>, COLS_PER_LANE>();
            add_scores(&ds, at, OUTPUTS);
            for (var c = 0u; c < COLS_PER_LANE; c++) {
                let col = c * LANES_ACROSS + at.across;
                let stat = stats[min(first_col + col, rows - 1u) * HEADS + at.head];
                let score = capped(params.scale * weights[c]);
                weights[c] = select(vec4<f32>(), exp(score - stat.x), seen_by(at, query_spans[col]));
                ds[c] = capped_slope(score) * weights[c] * (ds[c] - stat.y);
            }
            add_weighted(&to_value, weights, at, OUTPUTS);
            add_weighted(&to_key, ds, at, QUERIES);
        }
        find_next(at.lane);
    }
    for (var r = 0u; r < 4u; r++) {
        let j = lane_row(at, r);
        if (j < rows) {
            for (var v = 0u; v < VECTORS_PER_LANE; v++) {
                let w = v * LANES_ACROSS + at.across;
                if (w < WIDTH) {
                    dqkv[j * KV_STRIDE + KEYS_AT + kv_head * WIDTH + w] = params.scale * to_key[r][v];
                    dqkv[j * KV_STRIDE + VALUES_AT + kv_head * WIDTH + w] = to_value[r][v];
                }
            }
        }
    }
}
