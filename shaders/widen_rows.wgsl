// widen_rows: y = w, rows of a 16-bit matrix as f32.
//   w (O, I), the elements from `first` on   ->   y (rows, I)  =
// `len` = rows · I and `first` are multiples of 4.
struct Params { first: u32, len: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> w: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
//#include step
//#include weight

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
    let last = min((group + 1u) * 1024u, params.len / 4u);
    for (var i = group * 1024u + lane; i < last; i += 64u) {
        y[i] = weights(w[params.first / 4u + i]);
    }
}
