// residual_add: y = a + b, four elements an invocation.
//   a, b (N, C)   ->   y (N, C)  = or += (ADD); without TWO there is no b

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let len = extent(params.rows) * params.cols;
    if (group >= step.end) {
        return;
    }
    // A workgroup takes four rows.
    let first = group * 4u * params.cols;
    let last = min(first + 4u * params.cols, len);
    for (var m = first + lane; m < last; m += 64u) {
        var v = a[m];
//#if TWO
        v += b[m];
//#end
//#if ADD
        v += y[m];
//#end
        y[m] = v;
    }
}
