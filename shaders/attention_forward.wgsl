// attention_forward: softmax attention over the keys of each query's two ranges, a (query, head) an invocation.
//   q (N, …)  kv (M, …)  spans (N, 4)   ->   out (N, HEADS DIM)  =   stats (N, HEADS) pairs: (lse, –)  =
// s_j = scale q·k_j,  lse = ln Σ exp s_j,  out = Σ exp(s_j - lse) v_j; without keys zeros, and lse -1e30
// In a subgroup, adjacent queries of one head go through the keys that any of them sees together: each lane loads a key.
struct Params { rows: u32, scale: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> spans: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
//#if KEEP
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;
//#end
//#include step
//#include spans
//#include attention

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
//#include tile_lane
    let group = group_index(id, count);
    let rows = extent(params.rows);
    let first = group / HEADS * 64u + part * LANES;
    let n = first + lane;
    let head = group % HEADS;
    if (group >= step.end || first >= rows) {
        return;
    }
    let row = min(n, rows - 1u);
    let span = select(vec4(0u), spans[row], n < rows);
    let kv_at = head / SHARED * WIDTH;
    var query: array<vec4<f32>, WIDTH>;
    var sum: array<vec4<f32>, WIDTH>;
    for (var w = 0u; w < WIDTH; w++) {
        query[w] = params.scale * q[row * Q_STRIDE + head * WIDTH + w];
    }
    var largest = NOTHING;
    var total = 0.0;
//#if SUBGROUP
//#for range in 2
    {
        let start = select(span.x, span.z, ${range} == 1);
        let end = select(span.y, span.w, ${range} == 1);
        let first_key = subgroupMin(select(NO_KEY, start, start < end));
        let last_key = subgroupMax(select(0u, end, start < end));
        for (var j = first_key; j < last_key; j += LANES) {
            let at = min(j + lane, last_key - 1u) * KV_STRIDE + kv_at;
            var key: array<vec4<f32>, WIDTH>;
            var value: array<vec4<f32>, WIDTH>;
            for (var w = 0u; w < WIDTH; w++) {
                key[w] = kv[at + KEYS_AT + w];
                value[w] = kv[at + VALUES_AT + w];
            }
            // Key by key, and keys that a query does not see change nothing: its result does not depend on its neighbours.
//#for l in LANES
            {
                let seen = j + ${l}u >= start && j + ${l}u < end;
                var s = 0.0;
                for (var w = 0u; w < WIDTH; w++) {
                    s += dot(query[w], subgroupBroadcast(key[w], ${l}u));
                }
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
    }
//#end
    if (n >= rows) {
        return;
    }
//#else
    if (n >= rows) {
        return;
    }
    let keys = key_count(span);
    // Four keys a turn share the update of the largest score. Past the last key, it is repeated with no weight.
    for (var i = 0u; i < keys; i += 4u) {
        var base: array<u32, 4>;
        for (var t = 0u; t < 4u; t++) {
            base[t] = key_row(span, min(i + t, keys - 1u)) * KV_STRIDE + kv_at;
        }
        var s = vec4<f32>();
        for (var w = 0u; w < WIDTH; w++) {
            let x = query[w];
            s += vec4(
                dot(x, kv[base[0] + KEYS_AT + w]),
                dot(x, kv[base[1] + KEYS_AT + w]),
                dot(x, kv[base[2] + KEYS_AT + w]),
                dot(x, kv[base[3] + KEYS_AT + w]),
            );
        }
        s = select(vec4(NOTHING), s, vec4(i, i + 1u, i + 2u, i + 3u) < vec4(keys));
        let top = max(largest, max(max(s.x, s.y), max(s.z, s.w)));
        let kept = exp(largest - top);
        let p = exp(s - top);
        largest = top;
        total = total * kept + p.x + p.y + p.z + p.w;
        for (var w = 0u; w < WIDTH; w++) {
            sum[w] = sum[w] * kept + p.x * kv[base[0] + VALUES_AT + w] + p.y * kv[base[1] + VALUES_AT + w]
                + p.z * kv[base[2] + VALUES_AT + w] + p.w * kv[base[3] + VALUES_AT + w];
        }
    }
//#end
    // The largest score has weight 1, so that the total of any keys is at least 1.
    total = max(total, 1.0);
    for (var w = 0u; w < WIDTH; w++) {
        out[(n * HEADS + head) * WIDTH + w] = sum[w] / total;
    }
//#if KEEP
    stats[n * HEADS + head] = vec2(largest + log(total), 0.0);
//#end
}
