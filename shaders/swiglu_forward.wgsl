// swiglu_forward: y = gate σ(gate) up.
//   gate, up (N, F)   ->   y (N, F)  =
struct Params { rows: u32, cols: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gate: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
//#include step
//#include elements
//#include sigmoid

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
    let these = elements_of(group, extent(params.rows), params.cols);
    for (var m = these.first + lane; m < these.last; m += 64u) {
        y[m] = gate[m] * sigmoid(gate[m]) * up[m];
    }
}
