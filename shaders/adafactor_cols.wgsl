// adafactor_cols: Σ g² by columns over one slice of the rows, an invocation a column.
//   g (rows, cols)   ->   partials (slices, cols)  =

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let slice = group % params.slices;
    let col = group / params.slices * 64u + lane;
    if (group >= step.end || col >= params.cols) {
        return;
    }
    let share = (params.rows + params.slices - 1u) / params.slices;
    let last = min((slice + 1u) * share, params.rows);
    var sum = 0.0;
    for (var r = slice * share; r < last; r++) {
        let d = g[r * params.cols + col];
        sum += d * d;
    }
    partials[slice * params.cols + col] = sum;
}
