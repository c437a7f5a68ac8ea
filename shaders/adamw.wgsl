// adamw: a step of AdamW, in place, several elements an invocation; nothing where norm says not finite.
//   g (M)  norm (1, 4) of global_norm   ->   w, m, v (M)  updated
// g *= clip scale,  m = β1 m + (1 - β1) g,  v = β2 v + (1 - β2) g²
// w = w (1 - lr decay) - lr (m / bias correction 1) / (sqrt(v / bias correction 2) + epsilon)

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    if (group >= step.end || norm[0].z == 0.0) {
        return;
    }
    let rate = scalar(0u);
    let by1 = scalar(1u);
    let by2 = scalar(2u);
    let first = group * params.share;
    let last = min(first + params.share, params.len);
    for (var i = first + lane; i < last; i += 64u) {
        let d = g[i] * norm[0].y;
        let mean = params.beta1 * m[i] + (1.0 - params.beta1) * d;
        let square = params.beta2 * v[i] + (1.0 - params.beta2) * d * d;
        m[i] = mean;
        v[i] = square;
        let u = mean * by1 / (sqrt(square * by2) + params.epsilon);
        w[i] = w[i] * (1.0 - rate * params.decay) - rate * u;
    }
}
