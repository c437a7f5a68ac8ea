// attention_backward_stats: what the backward kernels need to know of each query and head, as pairs.
//   dout, out (N, HEADS DIM)  lse (N, HEADS)   ->   stats (N, HEADS)  =  (lse, dout·out)
struct Params { rows: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec2<f32>>;
//#include step
//#include attention
//#include elements

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    if (group >= step.end) {
        return;
    }
    let these = elements_of(group, extent(params.rows), HEADS);
    for (var m = these.first + lane; m < these.last; m += 64u) {
        var delta = 0.0;
        for (var w = 0u; w < WIDTH; w++) {
            delta += dot(dout[m * WIDTH + w], out[m * WIDTH + w]);
        }
        stats[m] = vec2(lse[m], delta);
    }
}
