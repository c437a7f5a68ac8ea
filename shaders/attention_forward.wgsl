// attention_forward: softmax attention over the keys of each query's two ranges, a (query, head) an invocation; with
// BEFORE over those of another buffer first, which every query sees.
//   q (N, …)  kv (M, …)  spans (N, 4)  before (P, 2 KV_HEADS DIM)   ->   out (N, HEADS DIM)  =   stats (N, HEADS) pairs: (lse, –)  =
// s_j = scale q·k_j,  lse = ln Σ exp s_j,  out = Σ exp(s_j - lse) v_j; without keys zeros, and lse -1e30
// In a subgroup, adjacent queries of one head go through the keys that any of them sees together: each lane loads a key.
struct Params { rows: u32, before: u32, scale: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> spans: array<vec4<u32>>;
//#if BEFORE
@group(0) @binding(4) var<storage, read> before: array<vec4<f32>>;
//#end
@group(0) @binding(4 + BEFORE) var<storage, read_write> out: array<vec4<f32>>;
//#if KEEP
@group(0) @binding(5 + BEFORE) var<storage, read_write> stats: array<vec2<f32>>;
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
//#if BEFORE
    {
        let known = extent(params.before);
//#include attend KV=before STRIDE=BEFORE_STRIDE KEYS_AT=0u START=0u END=known
    }
//#end
    for (var range = 0u; range < 2u; range++) {
        let start = select(span.x, span.z, range == 1u);
        let end = select(span.y, span.w, range == 1u);
//#include attend KV=kv STRIDE=KV_STRIDE KEYS_AT=KEYS_AT START=start END=end
    }
    if (n >= rows) {
        return;
    }
    // The largest score has weight 1, so that the total of any keys is at least 1.
    total = max(total, 1.0);
    for (var w = 0u; w < WIDTH; w++) {
        out[(n * HEADS + head) * WIDTH + w] = sum[w] / total;
    }
//#if KEEP
    stats[n * HEADS + head] = vec2(largest + log(total), 0.0);
//#end
}
