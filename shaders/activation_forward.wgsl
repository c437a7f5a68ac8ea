// activation_forward: y = activation(x), or (GATED) activation(gate) · up of rows that contain both; lanes along the
// columns.
//   x (N, F), or (N, 2 F): gate, up   ->   y (N, F)  =
//#include activation
//#include elements

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
//#if GATED
        let at = row * 2u * params.cols;
        let value = activate(load_x(at, col, params.cols)) * load_x(at + params.cols, col, params.cols);
//#else
        let value = activate(load_x(row * params.cols, col, params.cols));
//#end
        store_y(row * params.cols + col, value, min(4u, params.cols - col));
    }
}
