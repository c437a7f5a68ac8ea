// attention_backward_query: the gradient of q, a (query, head) an invocation.
//   q, dout (N, HEADS DIM)  k, v (M, KV_HEADS DIM)  spans (N, 4)  stats (N, HEADS) by attention_backward_stats
//   ->   dq (N, HEADS DIM)  = or += (ADD)
// dq = scale Σ ds_j k_j,  ds_j = p_j (dout·v_j - delta),  p_j = exp(scale q·k_j - lse)
struct Params { rows: u32, scale: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> spans: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;
//#include step
//#include attention

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let n = group / HEADS * 64u + lane;
    let head = group % HEADS;
    if (group >= step.end || n >= extent(params.rows)) {
        return;
    }
    let span = spans[n];
    let keys = key_count(span);
    let at = (n * HEADS + head) * WIDTH;
    let stat = stats[n * HEADS + head];
    var query: array<vec4<f32>, WIDTH>;
    var dy: array<vec4<f32>, WIDTH>;
    var sum: array<vec4<f32>, WIDTH>;
    for (var w = 0u; w < WIDTH; w++) {
        query[w] = params.scale * q[at + w];
        dy[w] = dout[at + w];
    }
    for (var i = 0u; i < keys; i++) {
        let base = (key_row(span, i) * KV_HEADS + head / GROUP) * WIDTH;
        var key: array<vec4<f32>, WIDTH>;
        var s = -stat.x;
        var ds = -stat.y;
        for (var w = 0u; w < WIDTH; w++) {
            key[w] = k[base + w];
            s += dot(query[w], key[w]);
            ds += dot(dy[w], v[base + w]);
        }
        ds *= exp(s);
        for (var w = 0u; w < WIDTH; w++) {
            sum[w] += ds * key[w];
        }
    }
    for (var w = 0u; w < WIDTH; w++) {
        var g = params.scale * sum[w];
//#if ADD
        g += dq[at + w];
//#end
        dq[at + w] = g;
    }
}
