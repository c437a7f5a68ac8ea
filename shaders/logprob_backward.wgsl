// logprob_backward: turns a chunk of the logits x into their gradient, in place, lanes along the columns.
//   targets (T)  lse (T) saved by logprob_forward  dlogp (T)   ->   logits (T, stride)  =
// x[v] becomes dlogp ([v = target] - exp(x[v] - lse))
// cols: columns of logits used here: tokens from `first` on
// stride: columns of logits in all

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
        for (var v = lane; v < params.cols; v += 64u) {
            let at = row * params.stride + v;
            let one = select(0.0, 1.0, v == target_col);
            logits[at] = d * (one - exp(logits[at] - log_sum));
        }
    }
}
