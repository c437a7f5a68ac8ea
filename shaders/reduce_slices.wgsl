// reduce_slices: y = sum of the slices of x in order, four elements an invocation.
//   x (slices, M)   ->   y from element `first` on (M)  = or += (ADD)
struct Params { slices: u32, len: u32, first: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
//#include step

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
    for (var i = 0u; i < 4u; i++) {
        let m = group * 256u + i * 64u + lane;
        if (m < params.len) {
            var sum = 0.0;
            for (var s = 0u; s < params.slices; s++) {
                sum += x[s * params.len + m];
            }
//#if ADD
            sum += y[params.first + m];
//#end
            y[params.first + m] = sum;
        }
    }
}
