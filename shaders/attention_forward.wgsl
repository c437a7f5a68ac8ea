// attention_forward: softmax attention over the keys of each query's two ranges, one (query, head) per invocation; with
// BEFORE also over the keys of another buffer, which precede those of every query.
//   q (N, …)  kv (M, …)  spans (N, 4)  before (P, 2 KV_HEADS DIM)
//   ->   out (N, HEADS DIM)  =   stats (N, HEADS) pairs: (lse, –)  =  if SAVE_STATS
// s_j = scale q·k_j, soft-capped,  lse = ln Σ exp s_j,  out = Σ exp(s_j - lse) v_j; without keys zeros, and lse -1e30
// In a subgroup, adjacent queries of one head loop over the union of their keys: each lane loads one key for all.
//#include attention

// Buffers of keys and values: kv, and `before`, which has two ranges, the second empty.
const KV = 0u;

// Index of the first vector of a row's keys (or, with an offset, values) for a kv head.
fn row_at(source: u32, row: u32, kv_head: u32) -> u32 {
    if (source == KV) {
        return row * KV_STRIDE + KEYS_AT + kv_head * WIDTH;
    }
    return (row * 2u * KV_HEADS + kv_head) * WIDTH;
}

fn kv_vector(source: u32, at: u32) -> vec4<f32> {
//#if BEFORE
    if (source != KV) {
        return before[at];
    }
//#end
    return kv[at];
}

@compute @workgroup_size(64)
fn main(
    workgroup: Workgroup,
//#if SUBGROUP
    @builtin(subgroup_id) part: u32,
    @builtin(subgroup_invocation_id) lane: u32,
//#else
    @builtin(local_invocation_index) local: u32,
//#end
) {
//#if SUBGROUP
//#else
    let part = local / LANES;
    let lane = local % LANES;
//#end
    let group = group_index(workgroup);
    let rows = extent(params.rows);
    let first = group / HEADS * 64u + part * LANES;
    let n = first + lane;
    let head = group % HEADS;
    if (group >= step.end || first >= rows) {
        return;
    }
    let row = min(n, rows - 1u);
    let whole = select(vec4(0u), spans[row], n < rows);
    var query: array<vec4<f32>, WIDTH>;
    var sum: array<vec4<f32>, WIDTH>;
    for (var w = 0u; w < WIDTH; w++) {
        query[w] = params.scale * q[row * Q_STRIDE + head * WIDTH + w];
    }
    var largest = NOTHING;
    var total = 0.0;
    let span = seen_keys(whole);
//#for source in SOURCES
    for (var range = 0u; range < 2u; range++) {
//#if BEFORE
        var start = select(span.x, span.z, range == 1u);
        var end = select(span.y, span.w, range == 1u);
        if (${source}u != KV) {
            let known = extent(params.before_keys);
            end = select(known, 0u, range == 1u || n >= rows);
            start = 0u;
//#if WINDOW
            start = end - min(end, params.window - min(key_count(whole), params.window));
//#end
        }
//#else
        let start = select(span.x, span.z, range == 1u);
        let end = select(span.y, span.w, range == 1u);
//#end
//#if SUBGROUP
        let first_key = subgroupMin(select(NO_ROW, start, start < end));
        let last_key = subgroupMax(select(0u, end, start < end));
        for (var j = first_key; j < last_key; j += LANES) {
            let at = row_at(${source}u, min(j + lane, last_key - 1u), head / SHARED);
            var key: array<vec4<f32>, WIDTH>;
            var value: array<vec4<f32>, WIDTH>;
            for (var w = 0u; w < WIDTH; w++) {
                key[w] = kv_vector(${source}u, at + w);
                value[w] = kv_vector(${source}u, at + KV_HEADS * WIDTH + w);
            }
            // Key by key; keys that a query does not attend to change nothing, so its result does not depend on its
            // neighbours.
//#for l in LANES
            {
                let seen = j + ${l}u >= start && j + ${l}u < end;
                var s = 0.0;
                for (var w = 0u; w < WIDTH; w++) {
                    s += dot(query[w], subgroupBroadcast(key[w], ${l}u));
                }
                s = capped(vec4(s)).x;
                let rises = seen && s > largest;
                let kept = select(1.0, exp(largest - s), rises);
                largest = select(largest, s, rises);
                let p = select(0.0, exp(s - largest), seen);
                total = fma(total, kept, p);
                for (var w = 0u; w < WIDTH; w++) {
                    sum[w] = fma(vec4(p), subgroupBroadcast(value[w], ${l}u), sum[w] * kept);
                }
            }
//#end
        }
//#else
        // Four keys at a time share the update of the largest score. Past the last key, it is repeated with weight 0.
        for (var j = start; j < end; j += 4u) {
            let keys = vec4(j, j + 1u, j + 2u, j + 3u);
            var at: vec4<u32>;
            for (var i = 0u; i < 4u; i++) {
                at[i] = row_at(${source}u, min(keys[i], end - 1u), head / SHARED);
            }
            var s = vec4<f32>();
            for (var w = 0u; w < WIDTH; w++) {
                for (var i = 0u; i < 4u; i++) {
                    s[i] += dot(query[w], kv_vector(${source}u, at[i] + w));
                }
            }
            s = capped(s);
            s = select(vec4(NOTHING), s, keys < vec4(end));
            let top = max(largest, max(max(s.x, s.y), max(s.z, s.w)));
            let kept = exp(largest - top);
            let p = exp(s - top);
            largest = top;
            total = total * kept + p.x + p.y + p.z + p.w;
            at += vec4(KV_HEADS * WIDTH);
            for (var w = 0u; w < WIDTH; w++) {
                sum[w] = sum[w] * kept + p.x * kv_vector(${source}u, at.x + w) + p.y * kv_vector(${source}u, at.y + w)
                    + p.z * kv_vector(${source}u, at.z + w) + p.w * kv_vector(${source}u, at.w + w);
            }
        }
//#end
    }
//#end
    if (n >= rows) {
        return;
    }
    // The largest score has weight 1, so the total over any keys is at least 1.
    total = max(total, 1.0);
    for (var w = 0u; w < WIDTH; w++) {
        out[(n * HEADS + head) * WIDTH + w] = sum[w] / total;
    }
//#if SAVE_STATS
    stats[n * HEADS + head] = vec2(largest + log(total), 0.0);
//#end
}
