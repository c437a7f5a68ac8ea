// sum_squares: Σ x² of a workgroup's `share` elements, a multiple of 256, for global_norm.
//   x (M)   ->   partials from `first` on (ceil(M / share))  =
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let first = group * params.share;
    let last = min(first + params.share, params.len);
    var sums = vec4<f32>();
    for (var i = first + lane * 4u; i < last; i += 256u) {
        let four = load_x(0u, i, params.len);
        sums += four * four;
    }
    let sum = workgroup_sum(lane, dot(sums, vec4(1.0)));
    if (group < step.end && lane == 0u) {
        partials[params.first + group] = sum;
    }
}
