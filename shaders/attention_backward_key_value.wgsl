// attention_backward_key_value: gradients of k (if TO_KEY) and v (if TO_VALUE), a (key, kv head) an invocation.
//   q, dout (N, HEADS DIM)  k, v (N, KV_HEADS DIM)  ends (N)  stats (N, HEADS) by attention_backward_stats
//   ->   dk (N, KV_HEADS DIM)  = or += (ADD_KEY)   dv (N, KV_HEADS DIM)  = or += (ADD_VALUE)
// dk_j = scale Σ ds q,  dv_j = Σ p dout over the queries j .. ends_j and the GROUP heads that read the key,
// ds = p (dout·v_j - delta),  p = exp(scale q·k_j - lse)
struct Params { rows: u32, scale: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> ends: array<u32>;
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> stats: array<vec2<f32>>;
//#if TO_KEY
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>;
//#end
//#if TO_VALUE
@group(0) @binding(7 + TO_KEY) var<storage, read_write> dv: array<vec4<f32>>;
//#end
//#include step
//#include attention

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let j = group / KV_HEADS * 64u + lane;
    let kv_head = group % KV_HEADS;
    if (group >= step.end || j >= extent(params.rows)) {
        return;
    }
    let at = (j * KV_HEADS + kv_head) * WIDTH;
    let end = ends[j];
    var key: array<vec4<f32>, WIDTH>;
    var value: array<vec4<f32>, WIDTH>;
    var to_key: array<vec4<f32>, WIDTH>;
    var to_value: array<vec4<f32>, WIDTH>;
    for (var w = 0u; w < WIDTH; w++) {
        key[w] = params.scale * k[at + w];
        value[w] = v[at + w];
    }
    for (var n = j; n < end; n++) {
        for (var h = 0u; h < GROUP; h++) {
            let row = n * HEADS + kv_head * GROUP + h;
            let base = row * WIDTH;
            let stat = stats[row];
            var query: array<vec4<f32>, WIDTH>;
            var s = -stat.x;
            for (var w = 0u; w < WIDTH; w++) {
                query[w] = q[base + w];
                s += dot(key[w], query[w]);
            }
            let p = exp(s);
            var ds = -stat.y;
            for (var w = 0u; w < WIDTH; w++) {
                let dy = dout[base + w];
                ds += dot(dy, value[w]);
                to_value[w] += p * dy;
            }
            ds *= p;
            for (var w = 0u; w < WIDTH; w++) {
                to_key[w] += ds * query[w];
            }
        }
    }
    for (var w = 0u; w < WIDTH; w++) {
//#if TO_KEY
        var gk = params.scale * to_key[w];
//#end
//#if ADD_KEY
        gk += dk[at + w];
//#end
//#if TO_KEY
        dk[at + w] = gk;
//#end
//#if TO_VALUE
        var gv = to_value[w];
//#end
//#if ADD_VALUE
        gv += dv[at + w];
//#end
//#if TO_VALUE
        dv[at + w] = gv;
//#end
    }
}
