// column_sum: Σ of x by columns over a slice of `share` rows, one column per invocation.
//   x (N, C)   ->   y (slices, C)  =  summed by reduce_slices
@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let across = (params.cols + 63u) / 64u;
    let slice = group / across;
    let col = group % across * 64u + lane;
    if (group >= step.end || col >= params.cols) {
        return;
    }
    let last = min((slice + 1u) * params.share, extent(params.rows));
    var sum = 0.0;
    for (var row = slice * params.share; row < last; row++) {
        sum += x[row * params.cols + col];
    }
    y[slice * params.cols + col] = sum;
}
