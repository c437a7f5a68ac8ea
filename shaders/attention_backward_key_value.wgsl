// attention_backward_key_value: gradients of keys and values, one (key, kv head) per invocation.
//   qkv (N, O)  spans (N, 4)  ends (N)  dout (N, HEADS DIM)  stats (N, HEADS) by
//   attention_backward_query   ->   dqkv (N, O): its keys and values  =
// dk_j = scale Σ ds q,  dv_j = Σ p dout over the queries j .. ends_j and the SHARED heads that read the key,
// ds = p (dout·v_j - delta),  p = exp(scale q·k_j - lse)
//#include attention

// Whether key j, which is in the span of query n, is also in its window.
fn in_window(n: u32, j: u32) -> bool {
//#if WINDOW
    return sees(seen_keys(spans[n]), j);
//#else
    return true;
//#end
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
                var s = 0.0;
                var ds = -subgroupBroadcast(stat.y, ${l}u);
                var query_l: array<vec4<f32>, WIDTH>;
                var dy_l: array<vec4<f32>, WIDTH>;
                for (var w = 0u; w < WIDTH; w++) {
                    query_l[w] = subgroupBroadcast(query[w], ${l}u);
                    dy_l[w] = subgroupBroadcast(dy[w], ${l}u);
                    s += dot(key[w], query_l[w]);
                    ds += dot(dy_l[w], value[w]);
                }
                s = capped(vec4(s)).x;
                let seen = n0 + ${l}u >= j && n0 + ${l}u < end && in_window(n0 + ${l}u, j);
                let p = select(0.0, exp(s - subgroupBroadcast(stat.x, ${l}u)), seen);
                ds *= p * capped_slope(vec4(s)).x;
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
            var s = 0.0;
            for (var w = 0u; w < WIDTH; w++) {
                query[w] = qkv[n * Q_STRIDE + head * WIDTH + w];
                s += dot(key[w], query[w]);
            }
            s = capped(vec4(s)).x;
            let p = select(0.0, exp(s - stat.x), in_window(n, j));
            var ds = -stat.y;
            for (var w = 0u; w < WIDTH; w++) {
                let dy = dout[(n * HEADS + head) * WIDTH + w];
                ds += dot(dy, value[w]);
                to_value[w] += p * dy;
            }
            ds *= p * capped_slope(vec4(s)).x;
            for (var w = 0u; w < WIDTH; w++) {
                to_key[w] += ds * query[w];
            }
        }
    }
//#end
    for (var w = 0u; w < WIDTH; w++) {
        dqkv[at + KEYS_AT + w] = params.scale * to_key[w];
        dqkv[at + VALUES_AT + w] = to_value[w];
    }
}
