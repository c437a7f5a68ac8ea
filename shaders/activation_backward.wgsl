// activation_backward: the gradient of y = activation(x), or (GATED) of y = activation(gate) · up.
//   dy (N, F)  x (N, F), or (N, 2 F): gate, up   ->   dx, shaped as x  = or += (ADD)
//#include activation
//#include elements

fn add_to_dx(at: u32, value: vec4<f32>, count: u32) {
//#if ADD
    store_dx(at, value + load_dx(at, 0u, count), count);
//#else
    store_dx(at, value, count);
//#end
}

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    if (group >= step.end) {
        return;
    }
    let these = quads_of(group, extent(params.rows), params.cols);
    for (var q = these.first + lane; q < these.last; q += 64u) {
        let row = q / these.across;
        let col = q % these.across * 4u;
        let count = min(4u, params.cols - col);
        let dy = load_dy(row * params.cols, col, params.cols);
//#if GATED
        let at = row * 2u * params.cols;
        let gate = load_x(at, col, params.cols);
        let up = load_x(at + params.cols, col, params.cols);
        add_to_dx(at + col, dy * up * activation_slope(gate), count);
        add_to_dx(at + params.cols + col, dy * activate(gate), count);
//#else
        let at = row * params.cols;
        add_to_dx(at + col, dy * activation_slope(load_x(at, col, params.cols)), count);
//#end
    }
}
