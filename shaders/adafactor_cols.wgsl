// adafactor_cols: Σ g² by columns over one slice of the rows, four columns per invocation.
//   g (rows, cols)   ->   partials (slices, cols)  =

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let slice = group % params.slices;
    let col = (group / params.slices * 64u + lane) * 4u;
    if (group >= step.end || col >= params.cols) {
        return;
    }
    let share = (params.rows + params.slices - 1u) / params.slices;
    let last = min((slice + 1u) * share, params.rows);
    var sums = vec4<f32>();
    for (var r = slice * share; r < last; r++) {
        let d = load_g(r * params.cols, col, params.cols);
        sums += d * d;
    }
    store_partials(slice * params.cols + col, sums, min(4u, params.cols - col));
}
