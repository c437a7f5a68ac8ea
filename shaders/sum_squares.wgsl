// sum_squares: Σ x² of a workgroup's `share` elements, for global_norm.
//   x (M)   ->   partials from `first` on (ceil(M / share))  =
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let first = group * params.share;
    let last = min(first + params.share, params.len);
    var sum = 0.0;
    for (var m = first + lane; m < last; m += 64u) {
        sum += x[m] * x[m];
    }
    sum = workgroup_sum(lane, sum);
    if (group < step.end && lane == 0u) {
        partials[params.first + group] = sum;
    }
}
