// attention_decode: softmax attention of single queries, LANES invocations per (query, head): each processes every
// LANES-th key.
//   q (N, HEADS DIM)  kv (M, 2 KV_HEADS DIM)  spans (N, 4)   ->   out (N, HEADS DIM)  =
//#include attention

//#if SUBGROUP
//#else
var<workgroup> tops: array<f32, LANES>;
var<workgroup> parts: array<vec4<f32>, LANES>;

// The sum of v over the lanes, in lane 0.
fn lane_sum(lane: u32, v: vec4<f32>) -> vec4<f32> {
    parts[lane] = v;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            parts[lane] += parts[lane + half];
        }
    }
    workgroupBarrier();
    let sum = parts[0];
    workgroupBarrier();
    return sum;
}
//#end

@compute @workgroup_size(WORKGROUP)
fn main(
    workgroup: Workgroup,
//#if SUBGROUP
    @builtin(subgroup_id) part: u32,
    @builtin(subgroup_invocation_id) lane: u32,
//#else
    @builtin(local_invocation_index) lane: u32,
//#end
) {
    let group = group_index(workgroup);
//#if SUBGROUP
    let m = group * (WORKGROUP / LANES) + part;
//#else
    let m = group;
//#end
    let n = m / HEADS;
    let head = m % HEADS;
    if (group >= step.end || n >= extent(params.rows)) {
        return;
    }
    let span = seen_keys(spans[n]);
    let keys = key_count(span);
    var query: array<vec4<f32>, WIDTH>;
    var sum: array<vec4<f32>, WIDTH>;
    for (var w = 0u; w < WIDTH; w++) {
        query[w] = params.scale * q[n * Q_STRIDE + head * WIDTH + w];
    }
    var largest = NOTHING;
    var total = 0.0;
    for (var i = lane; i < keys; i += LANES) {
        let at = key_row(span, i) * KV_STRIDE + head / SHARED * WIDTH;
        var s = 0.0;
        for (var w = 0u; w < WIDTH; w++) {
            s += dot(query[w], kv[at + KEYS_AT + w]);
        }
        s = capped(vec4(s)).x;
        let top = max(largest, s);
        let kept = exp(largest - top);
        let p = exp(s - top);
        largest = top;
        total = total * kept + p;
        for (var w = 0u; w < WIDTH; w++) {
            sum[w] = sum[w] * kept + p * kv[at + VALUES_AT + w];
        }
    }
    // A lane without keys has NOTHING as its largest score, and sums of 0.
//#if SUBGROUP
    let top = subgroupMax(largest);
    let weight = exp(largest - top);
    total = max(subgroupAdd(total * weight), 1.0);
    for (var w = 0u; w < WIDTH; w++) {
        let value = subgroupAdd(sum[w] * weight) / total;
        if (lane == w % LANES) {
            out[(n * HEADS + head) * WIDTH + w] = value;
        }
    }
//#else
    tops[lane] = largest;
    workgroupBarrier();
    var top = NOTHING;
    for (var l = 0u; l < LANES; l++) {
        top = max(top, tops[l]);
    }
    let weight = exp(largest - top);
    total = max(lane_sum(lane, vec4(total * weight)).x, 1.0);
    for (var w = 0u; w < WIDTH; w++) {
        let value = lane_sum(lane, sum[w] * weight) / total;
        if (lane == w % LANES) {
            out[(n * HEADS + head) * WIDTH + w] = value;
        }
    }
//#end
}
