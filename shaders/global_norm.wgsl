// global_norm: the norm of all gradients and the factor that clips it, in one workgroup.
//   partials (G) of sum_squares   ->   norm (1, 4)  =
// norm = [sqrt Σ, min(1, max_norm / (sqrt Σ + 1e-6)), 1, 0], or zeros if Σ is not finite; max_norm 0 means no clipping
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < params.len; i += 64u) {
        sum += partials[i];
    }
    sum = workgroup_sum(lane, sum);
    if (lane > 0u) {
        return;
    }
    // Tests the bits: a compiler may assume that no float is infinite or NaN.
    if ((bitcast<u32>(sum) & 0x7f800000u) == 0x7f800000u) {
        norm[0] = vec4(0.0);
        return;
    }
    let root = sqrt(sum);
    let clipped = min(1.0, params.max_norm / (root + 1e-6));
    norm[0] = vec4(root, select(1.0, clipped, params.max_norm > 0.0), 1.0, 0.0);
}
