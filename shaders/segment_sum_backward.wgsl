// segment_sum_backward: dx[t] = dy[s] for offsets[s] <= t < offsets[s + 1], one segment per invocation.
//   dy (S)  offsets (S + 1)   ->   dx (T)  = or += (ADD)

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let s = group * 64u + lane;
    if (group >= step.end || s >= extent(params.segments)) {
        return;
    }
    let end = min(offsets[s + 1u], extent(params.rows));
    for (var t = offsets[s]; t < end; t++) {
        var d = dy[s];
//#if ADD
        d += dx[t];
//#end
        dx[t] = d;
    }
}
