// attention_backward_query: the gradient of the queries, one (query, head) per invocation.
//   qkv (N, O)  spans (N, 4)  dout, out (N, HEADS DIM)  stats (N, HEADS): lse of attention_forward
//   ->   dqkv (N, O): its queries  =   stats: delta beside lse  =
// dq = scale Σ ds_j k_j,  ds_j = p_j (dout·v_j - delta),  p_j = exp(scale q·k_j - lse),  delta = dout·out; scores are
// soft-capped
//#include attention

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
    let span = seen_keys(select(vec4(0u), spans[row], n < rows));
    let kv_at = head / SHARED * WIDTH;
    let lse = stats[row * HEADS + head].x;
    var delta = 0.0;
    var query: array<vec4<f32>, WIDTH>;
    var dy: array<vec4<f32>, WIDTH>;
    var sum: array<vec4<f32>, WIDTH>;
    for (var w = 0u; w < WIDTH; w++) {
        let at = (row * HEADS + head) * WIDTH + w;
        query[w] = params.scale * qkv[row * Q_STRIDE + head * WIDTH + w];
        dy[w] = dout[at];
        delta += dot(dy[w], out[at]);
    }
//#if SUBGROUP
//#for range in 2
    {
        let start = select(span.x, span.z, ${range} == 1);
        let end = select(span.y, span.w, ${range} == 1);
        let first_key = subgroupMin(select(NO_ROW, start, start < end));
        let last_key = subgroupMax(select(0u, end, start < end));
        for (var j = first_key; j < last_key; j += LANES) {
            let at = min(j + lane, last_key - 1u) * KV_STRIDE + kv_at;
            var key: array<vec4<f32>, WIDTH>;
            var value: array<vec4<f32>, WIDTH>;
            for (var w = 0u; w < WIDTH; w++) {
                key[w] = qkv[at + KEYS_AT + w];
                value[w] = qkv[at + VALUES_AT + w];
            }
//#for l in LANES
            {
                var s = 0.0;
                var ds = -delta;
                var theirs: array<vec4<f32>, WIDTH>;
                for (var w = 0u; w < WIDTH; w++) {
                    theirs[w] = subgroupBroadcast(key[w], ${l}u);
                    s += dot(query[w], theirs[w]);
                    ds += dot(dy[w], subgroupBroadcast(value[w], ${l}u));
                }
                s = capped(vec4(s)).x;
                ds = select(0.0, ds * exp(s - lse) * capped_slope(vec4(s)).x, j + ${l}u >= start && j + ${l}u < end);
                for (var w = 0u; w < WIDTH; w++) {
                    sum[w] = fma(vec4(ds), theirs[w], sum[w]);
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
    for (var i = 0u; i < keys; i++) {
        let at = key_row(span, i) * KV_STRIDE + kv_at;
        var key: array<vec4<f32>, WIDTH>;
        var s = 0.0;
        var ds = -delta;
        for (var w = 0u; w < WIDTH; w++) {
            key[w] = qkv[at + KEYS_AT + w];
            s += dot(query[w], key[w]);
            ds += dot(dy[w], qkv[at + VALUES_AT + w]);
        }
        s = capped(vec4(s)).x;
        ds *= exp(s - lse) * capped_slope(vec4(s)).x;
        for (var w = 0u; w < WIDTH; w++) {
            sum[w] += ds * key[w];
        }
    }
//#end
    for (var w = 0u; w < WIDTH; w++) {
        dqkv[n * Q_STRIDE + head * WIDTH + w] = params.scale * sum[w];
    }
    stats[n * HEADS + head] = vec2(lse, delta);
}
