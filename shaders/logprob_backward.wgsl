// logprob_backward: replaces a chunk of the products x, from which the logits z are computed, by their gradient; lanes
// along the columns in fours.
//   targets (T)  lse (T) saved by logprob_forward  dlogp (T)   ->   logits (T, stride): x  =
// x[v] becomes dlogp ([v = target] - exp(z[v] - lse)) dz/dx
// cols: the number of columns of logits in use: tokens from `first` on
// stride: the total number of columns of logits
//#include logits

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    if (group >= step.end) {
        return;
    }
    let rows = min(extent(params.rows), (group + 1u) * params.rows_per_group);
    for (var row = group * params.rows_per_group; row < rows; row++) {
        let target_col = targets[row] - params.first;
        let log_sum = lse[row];
        let d = dlogp[row];
        let at = row * params.stride;
        for (var v = lane * 4u; v < params.cols; v += 256u) {
            let z = logits_of(load_logits(at, v, params.cols));
            let one = select(vec4<f32>(), vec4(1.0), vec4(v, v + 1u, v + 2u, v + 3u) == vec4(target_col));
            store_logits(at + v, d * (one - exp(z - log_sum)) * logit_slopes(z), min(4u, params.cols - v));
        }
    }
}
