// copy_columns: copies or adds the columns `first` to `first + cols - 1` of every row.
//   x (N, stride)   ->   y (N, stride): those columns  = or += (ADD)
@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let across = (params.cols + 63u) / 64u;
    let row = group / across;
    let col = group % across * 64u + lane;
    if (group >= step.end || row >= extent(params.rows) || col >= params.cols) {
        return;
    }
    let at = row * params.stride + params.first + col;
//#if ADD
    y[at] += x[at];
//#else
    y[at] = x[at];
//#end
}
