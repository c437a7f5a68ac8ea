// attention_backward_query_tiled: the gradient of the queries, one tile of queries and one head per workgroup.
//   qkv (N, (HEADS + 2 KV_HEADS) DIM)  spans (N, 4)  dout, out (N, HEADS DIM)  stats (N, HEADS) pairs: lse of
//   attention_forward_tiled   ->   dqkv, as qkv: its queries  =   stats: delta beside lse  =
// dq = scale Σ ds_j k_j,  ds_j = p_j (dout·v_j - delta),  p_j = exp(s_j - lse),  delta = dout·out
// (SOFT_CAP: ds_j times 1 - (s_j / soft_cap)²; WINDOW: over the last `window` keys of a span)
//#include attention
//#include attention_tile
const KEYS = 0u;
const VALUES = 1u;
// Values of the queries, four to a vector as in the lanes: kept here, since registers are scarce.
var<workgroup> row_lse: array<vec4<f32>, LANES_DOWN>;
var<workgroup> row_delta: array<vec4<f32>, LANES_DOWN>;

// The rows of the queries, or with values those of the gradients of their outputs.
fn row_vector(at: Tile, operand: u32, row: u32, w: u32) -> vec4<f32> {
    let n = min(at.first_row + row, extent(params.rows) - 1u);
    if (operand == VALUES) {
        return dout[(n * HEADS + at.head) * WIDTH + w];
    }
    return qkv[n * Q_STRIDE + at.head * WIDTH + w];
}

// The rows of the keys or values.
fn col_vector(at: Tile, operand: u32, col: u32, w: u32) -> vec4<f32> {
    return qkv[col_row(at, col) * KV_STRIDE + select(KEYS_AT, VALUES_AT, operand == VALUES) + at.kv_head * WIDTH + w];
}

fn span_of(n: u32) -> vec4<u32> {
    if (n >= extent(params.rows)) {
        return vec4<u32>();
    }
    let span = seen_keys(spans[n]);
    return span;
}

@compute @workgroup_size(LANES)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let rows = extent(params.rows);
    let first_row = group / HEADS * TILE_ROWS;
    let head = group % HEADS;
    if (group >= step.end || first_row >= rows) {
        return;
    }
    var at = tile_at(lane, first_row, head);
    var lse: vec4<f32>;
    var delta: vec4<f32>;
    for (var r = 0u; r < 4u; r++) {
        let row = min(lane_row(at, r), rows - 1u) * HEADS + head;
        lse[r] = stats[row].x;
        for (var w = at.across; w < WIDTH; w += LANES_ACROSS) {
            delta[r] += dot(dout[row * WIDTH + w], out[row * WIDTH + w]);
        }
    }
    delta = sum_across(at, delta);
    if (at.across == 0u) {
        row_lse[at.down] = lse;
        row_delta[at.down] = delta;
    }
    var sums: array<array<vec4<f32>, VECTORS_PER_LANE>, 4>;
    find_first(at.lane, span_of(first_row + at.lane), spans[min(first_row + at.lane, rows - 1u)].xz);
    loop {
        let first_col = workgroupUniformLoad(&next_col);
        if (first_col == NO_ROW) {
            break;
        }
        at.first_col = first_col;
        at.seen = find_visible(at.lane, first_col);
        var scores = array<vec4<f32>, COLS_PER_LANE>();
        add_scores(&scores, at, KEYS);
        find_next(at.lane);
        // The factor of dout·v - delta.
        let visible = lane_visible(at);
        for (var c = 0u; c < COLS_PER_LANE; c++) {
            scores[c] = capped(params.scale * scores[c]);
            let slope = capped_slope(scores[c]);
            scores[c] = select(vec4<f32>(), slope * exp(scores[c] - row_lse[at.down]), sees_col(at, visible, c));
        }
        var ds = array<vec4<f32>, COLS_PER_LANE>();
        add_scores(&ds, at, VALUES);
        for (var c = 0u; c < COLS_PER_LANE; c++) {
            ds[c] = scores[c] * (ds[c] - row_delta[at.down]);
        }
        add_weighted(&sums, ds, at, KEYS);
    }
    for (var r = 0u; r < 4u; r++) {
        let n = lane_row(at, r);
        if (n < rows) {
            for (var v = 0u; v < VECTORS_PER_LANE; v++) {
                let w = v * LANES_ACROSS + at.across;
                if (w < WIDTH) {
                    dqkv[n * Q_STRIDE + head * WIDTH + w] = params.scale * sums[r][v];
                }
            }
            if (at.across == 0u) {
                stats[n * HEADS + head] = vec2(row_lse[at.down][r], row_delta[at.down][r]);
            }
        }
    }
}
