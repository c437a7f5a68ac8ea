// segment_sum: y[s] = Σ x[t] over offsets[s] <= t < offsets[s + 1], in order, one segment per invocation.
//   x (T)  offsets (S + 1)   ->   y (S)  =

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let s = group * 64u + lane;
    if (group >= step.end || s >= extent(params.segments)) {
        return;
    }
    var sum = 0.0;
    let end = min(offsets[s + 1u], extent(params.rows));
    for (var t = offsets[s]; t < end; t++) {
        sum += x[t];
    }
    y[s] = sum;
}
