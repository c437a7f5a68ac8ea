// adamw: a step of AdamW, in place, lanes along the elements in fours. Does nothing if norm is not finite.
//   g (M)  norm (1, 4) of global_norm   ->   w, m, v (M)  updated
// g *= clip scale,  m = β1 m + (1 - β1) g,  v = β2 v + (1 - β2) g²
// w = w (1 - lr decay) - lr (m / bias correction 1) / (sqrt(v / bias correction 2) + epsilon)
// share: elements per workgroup, a multiple of 256

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let clip = norm[0];
    if (group >= step.end || clip.z == 0.0) {
        return;
    }
    let rate = scalar(0u);
    let by1 = scalar(1u);
    let by2 = scalar(2u);
    let first = group * params.share;
    let last = min(first + params.share, params.len);
    for (var i = first + lane * 4u; i < last; i += 256u) {
        let d = load_g(0u, i, params.len) * clip.y;
        let mean = params.beta1 * load_m(0u, i, params.len) + (1.0 - params.beta1) * d;
        let square = params.beta2 * load_v(0u, i, params.len) + (1.0 - params.beta2) * d * d;
        let u = mean * by1 / (sqrt(square * by2) + params.epsilon);
        let weight = load_w(0u, i, params.len) * (1.0 - rate * params.decay) - rate * u;
        let count = min(4u, params.len - i);
        store_m(i, mean, count);
        store_v(i, square, count);
        store_w(i, weight, count);
    }
}
