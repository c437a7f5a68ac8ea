// swiglu_backward: gradients of y = gate σ(gate) up; that of gate if TO_GATE, that of up if TO_UP.
//   dy, gate, up (N, F)   ->   dgate (N, F)  = or += (ADD_GATE)   dup (N, F)  = or += (ADD_UP)
// dgate = dy up s (1 + gate (1 - s)),  dup = dy gate s,  s = σ(gate)
struct Params { rows: u32, cols: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> gate: array<f32>;
@group(0) @binding(3) var<storage, read> up: array<f32>;
//#if TO_GATE
@group(0) @binding(4) var<storage, read_write> dgate: array<f32>;
//#end
//#if TO_UP
@group(0) @binding(4 + TO_GATE) var<storage, read_write> dup: array<f32>;
//#end
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
        let g = gate[m];
        let s = sigmoid(g);
//#if TO_GATE
        var to_gate = dy[m] * up[m] * s * (1.0 + g * (1.0 - s));
//#end
//#if ADD_GATE
        to_gate += dgate[m];
//#end
//#if TO_GATE
        dgate[m] = to_gate;
//#end
//#if TO_UP
        var to_up = dy[m] * g * s;
//#end
//#if ADD_UP
        to_up += dup[m];
//#end
//#if TO_UP
        dup[m] = to_up;
//#end
    }
}
