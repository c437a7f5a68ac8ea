// attention_backward_key_value: gradients of the keys before their turn and of the values, a (key, kv head) an invocation.
//   qkv (N, O)  spans (N, 4)  ends (N)  table (positions, DIM)  dout (N, HEADS DIM)  stats (N, HEADS) by
//   attention_backward_query   ->   dqkv (N, O): its keys and values  =
// dk_j = scale Σ ds q,  dv_j = Σ p dout over the queries j .. ends_j and the SHARED heads that read the key,
// ds = p (dout·v_j - delta),  p = exp(scale q·k_j - lse)
struct Params { rows: u32, scale: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> spans: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> ends: array<u32>;
@group(0) @binding(4) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> dqkv: array<vec4<f32>>;
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
    let first = group / KV_HEADS * 64u + part * LANES;
    let j = first + lane;
    let kv_head = group % KV_HEADS;
    if (group >= step.end || first >= rows) {
        return;
    }
    let row = min(j, rows - 1u);
    let at = row * KV_STRIDE + kv_head * WIDTH;
    let end = select(0u, ends[row], j < rows);
    var key: array<vec4<f32>, WIDTH>;
    var value: array<vec4<f32>, WIDTH>;
    var to_key: array<vec4<f32>, WIDTH>;
    var to_value: array<vec4<f32>, WIDTH>;
    for (var w = 0u; w < WIDTH; w++) {
        key[w] = params.scale * qkv[at + KEYS_AT + w];
        value[w] = qkv[at + VALUES_AT + w];
    }
//#if SUBGROUP
    let last_query = subgroupMax(end);
    for (var n0 = first; n0 < last_query; n0 += LANES) {
        let theirs = min(n0 + lane, last_query - 1u);
        for (var head = kv_head * SHARED; head < (kv_head + 1u) * SHARED; head++) {
            let stat = stats[theirs * HEADS + head];
            var query: array<vec4<f32>, WIDTH>;
            var dy: array<vec4<f32>, WIDTH>;
            for (var w = 0u; w < WIDTH; w++) {
                query[w] = qkv[theirs * Q_STRIDE + head * WIDTH + w];
                dy[w] = dout[(theirs * HEADS + head) * WIDTH + w];
            }
//#for l in LANES
            {
                var s = -subgroupBroadcast(stat.x, ${l}u);
                var ds = -subgroupBroadcast(stat.y, ${l}u);
                var query_l: array<vec4<f32>, WIDTH>;
                var dy_l: array<vec4<f32>, WIDTH>;
                for (var w = 0u; w < WIDTH; w++) {
                    query_l[w] = subgroupBroadcast(query[w], ${l}u);
                    dy_l[w] = subgroupBroadcast(dy[w], ${l}u);
                    s += dot(key[w], query_l[w]);
                    ds += dot(dy_l[w], value[w]);
                }
                let p = select(0.0, exp(s), n0 + ${l}u >= j && n0 + ${l}u < end);
                ds *= p;
                for (var w = 0u; w < WIDTH; w++) {
                    to_value[w] = fma(vec4(p), dy_l[w], to_value[w]);
                    to_key[w] = fma(vec4(ds), query_l[w], to_key[w]);
                }
            }
//#end
        }
    }
    if (j >= rows) {
        return;
    }
//#else
    if (j >= rows) {
        return;
    }
    for (var n = j; n < end; n++) {
        for (var head = kv_head * SHARED; head < (kv_head + 1u) * SHARED; head++) {
            let stat = stats[n * HEADS + head];
            var query: array<vec4<f32>, WIDTH>;
            var s = -stat.x;
            for (var w = 0u; w < WIDTH; w++) {
                query[w] = qkv[n * Q_STRIDE + head * WIDTH + w];
                s += dot(key[w], query[w]);
            }
            let p = exp(s);
            var ds = -stat.y;
            for (var w = 0u; w < WIDTH; w++) {
                let dy = dout[(n * HEADS + head) * WIDTH + w];
                ds += dot(dy, value[w]);
                to_value[w] += p * dy;
            }
            ds *= p;
            for (var w = 0u; w < WIDTH; w++) {
                to_key[w] += ds * query[w];
            }
        }
    }
//#end
    let position = max(key_count(spans[j]), 1u) - 1u;
//#include turn_back OF=to_key POSITION=position
    for (var w = 0u; w < WIDTH; w++) {
        dqkv[at + KEYS_AT + w] = params.scale * to_key[w];
        dqkv[at + VALUES_AT + w] = to_value[w];
    }
}
