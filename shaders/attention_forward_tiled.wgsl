// attention_forward_tiled: softmax attention over the keys of each query's two ranges of rows, one tile of queries and
// one head per workgroup; with BEFORE first over the keys of another buffer, to which every query attends.
//   q (N, …)  kv (M, …)  spans (N, 4)  before (P, 2 KV_HEADS DIM)
//   ->   out (N, HEADS DIM)  =   stats (N, HEADS) pairs: (lse, 0)  =
// s_j = scale q·k_j (SOFT_CAP: soft_cap tanh(s_j / soft_cap)),  lse = ln Σ exp s_j,  out = Σ exp(s_j - lse) v_j
// over the keys that a query attends to (WINDOW: the last `window` of them); without keys zeros, and lse -1e30.
// The sums are relative to the largest score so far, and are scaled down when it grows (Milakov & Gimelshein 2018,
// arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135). Heads that share keys are adjacent workgroups.
//#include attention
//#include attention_tile
const KEYS = 0u;
const VALUES = 1u;

// The rows of the queries.
fn row_vector(at: Tile, operand: u32, row: u32, w: u32) -> vec4<f32> {
    let n = min(at.first_row + row, extent(params.rows) - 1u);
    return q[n * Q_STRIDE + at.head * WIDTH + w];
}

// The rows of the keys or values.
fn col_vector(at: Tile, operand: u32, col: u32, w: u32) -> vec4<f32> {
    let row = col_row(at, col);
//#if BEFORE
    if (at.source == 0u) {
        return before[row * BEFORE_STRIDE + select(0u, BEFORE_VALUES_AT, operand == VALUES) + at.kv_head * WIDTH + w];
    }
//#end
    return kv[row * KV_STRIDE + select(KEYS_AT, VALUES_AT, operand == VALUES) + at.kv_head * WIDTH + w];
}

// The keys that the query of a row attends to: in `before` (source 0) or in kv (source 1).
fn span_of(n: u32, source: u32) -> vec4<u32> {
    if (n >= extent(params.rows)) {
        return vec4<u32>();
    }
    var own = spans[n];
//#if WINDOW
    let own_keys = key_count(own);
    own = last_keys(own, params.window);
//#end
//#if BEFORE
    if (source == 0u) {
        let known = extent(params.before_keys);
//#if WINDOW
        return vec4(0u, 0u, known - min(known, params.window - min(own_keys, params.window)), known);
//#else
        return vec4(0u, 0u, 0u, known);
//#end
    }
//#end
    return own;
}

// The starts of its ranges, without a window.
fn origins_of(n: u32, source: u32) -> vec2<u32> {
    return select(vec2<u32>(), spans[min(n, extent(params.rows) - 1u)].xz, source == 1u);
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
    // Values of the lane's four queries. A lane's total is over its own columns.
    var largest = vec4(NOTHING);
    var total = vec4<f32>();
    var sums: array<array<vec4<f32>, VECTORS_PER_LANE>, 4>;
    for (var source = select(1u, 0u, BEFORE); source < 2u; source++) {
        at.source = source;
        find_first(at.lane, span_of(first_row + at.lane, source), origins_of(first_row + at.lane, source));
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
            let visible = lane_visible(at);
            var top = largest;
            for (var c = 0u; c < COLS_PER_LANE; c++) {
                scores[c] = select(vec4(NOTHING), capped(params.scale * scores[c]), sees_col(at, visible, c));
                top = max(top, scores[c]);
            }
            top = max_across(at, top);
            let base = max(top, vec4(LOWEST));
            let kept = exp(largest - base);
            largest = top;
            total *= kept;
            for (var c = 0u; c < COLS_PER_LANE; c++) {
                scores[c] = exp(scores[c] - base);
                total += scores[c];
            }
            for (var r = 0u; r < 4u; r++) {
                for (var w = 0u; w < VECTORS_PER_LANE; w++) {
                    sums[r][w] *= kept[r];
                }
            }
            add_weighted(&sums, scores, at, VALUES);
        }
    }
    // The largest score has weight 1, so the total over any keys is at least 1.
    total = max(sum_across(at, total), vec4(1.0));
    for (var r = 0u; r < 4u; r++) {
        let n = lane_row(at, r);
        if (n < rows) {
            for (var v = 0u; v < VECTORS_PER_LANE; v++) {
                let w = v * LANES_ACROSS + at.across;
                if (w < WIDTH) {
                    out[(n * HEADS + head) * WIDTH + w] = sums[r][v] / total[r];
                }
            }
//#if SAVE_STATS
            if (at.across == 0u) {
                stats[n * HEADS + head] = vec2(largest[r] + log(total[r]), 0.0);
            }
//#end
        }
    }
}
