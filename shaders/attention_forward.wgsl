// attention_forward: softmax attention over the keys of each query's two ranges, a (query, head) an invocation.
//   q (N, HEADS DIM)  k, v (M, KV_HEADS DIM)  spans (N, 4)   ->   out (N, HEADS DIM)  =   lse (N, HEADS)  =
// s_j = scale q·k_j,  lse = ln Σ exp s_j,  out = Σ exp(s_j - lse) v_j; without keys zeros, and lse -1e30
struct Params { rows: u32, scale: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> spans: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;
//#include step
//#include attention

const NOTHING = -1e30;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Lanes are adjacent queries of one head, so that they loop equally long.
    let group = group_index(id, count);
    let n = group / HEADS * 64u + lane;
    let head = group % HEADS;
    if (group >= step.end || n >= extent(params.rows)) {
        return;
    }
    let span = spans[n];
    let keys = key_count(span);
    let at = (n * HEADS + head) * WIDTH;
    var query: array<vec4<f32>, WIDTH>;
    var sum: array<vec4<f32>, WIDTH>;
    for (var w = 0u; w < WIDTH; w++) {
        query[w] = params.scale * q[at + w];
    }
    var largest = NOTHING;
    var total = 0.0;
    // Four keys a turn share the update of the largest score. Past the last key, it is repeated with no weight.
    for (var i = 0u; i < keys; i += 4u) {
        var base: array<u32, 4>;
        for (var t = 0u; t < 4u; t++) {
            base[t] = (key_row(span, min(i + t, keys - 1u)) * KV_HEADS + head / GROUP) * WIDTH;
        }
        var s = vec4<f32>();
        for (var w = 0u; w < WIDTH; w++) {
            let x = query[w];
            s += vec4(
                dot(x, k[base[0] + w]),
                dot(x, k[base[1] + w]),
                dot(x, k[base[2] + w]),
                dot(x, k[base[3] + w]),
            );
        }
        s = select(vec4(NOTHING), s, vec4(i, i + 1u, i + 2u, i + 3u) < vec4(keys));
        let top = max(largest, max(max(s.x, s.y), max(s.z, s.w)));
        let kept = exp(largest - top);
        let p = exp(s - top);
        largest = top;
        total = total * kept + p.x + p.y + p.z + p.w;
        for (var w = 0u; w < WIDTH; w++) {
            sum[w] = sum[w] * kept + p.x * v[base[0] + w] + p.y * v[base[1] + w] + p.z * v[base[2] + w]
                + p.w * v[base[3] + w];
        }
    }
    // The largest score has weight 1, so that the total of any keys is at least 1.
    total = max(total, 1.0);
    for (var w = 0u; w < WIDTH; w++) {
        out[at + w] = sum[w] / total;
    }
    lse[n * HEADS + head] = largest + log(total);
}
