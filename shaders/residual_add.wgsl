// residual_add: y = a + scale · b, four elements per invocation; without TWO y = scale · a. scale is 1 without SCALE.
//   a, b (N, C)   ->   y (N, C)  = or += (ADD)

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let len = extent(params.rows) * params.cols;
    if (group >= step.end) {
        return;
    }
    // A workgroup processes four rows.
    let first = group * 4u * params.cols;
    let last = min(first + 4u * params.cols, len);
    for (var m = first + lane; m < last; m += 64u) {
//#if TWO
        var v = b[m];
//#else
        var v = a[m];
//#end
//#if SCALE
        v *= params.scale;
//#end
//#if TWO
        v += a[m];
//#end
//#if ADD
        v += y[m];
//#end
        y[m] = v;
    }
}
