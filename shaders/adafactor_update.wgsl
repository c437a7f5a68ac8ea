// adafactor_update: Adafactor's update u, several elements an invocation: first its partial sums of squares, then
// (APPLY) the step itself; nothing where norm says not finite.
//   g (M)  norm (1, 4)  MATRIX: row (rows)  col (cols)  row_mean (1), updated already
//   ->   else v (M)  updated, but not with APPLY;  partials (G)  = , or with APPLY read;  APPLY: w (M)  updated
// g *= clip scale,  v = β v + (1 - β) (g² + epsilon),  β = scalar 3,  lr = scalar 0
// u = g / sqrt(row col / row_mean), or g / sqrt(v);  w = w (1 - lr decay) - lr u / max(1, rms(u) / threshold)
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let finite = norm[0].z != 0.0;
    let first = group * params.share;
    let last = select(first, min(first + params.share, params.len), finite && group < step.end);
    var sum = 0.0;
//#if APPLY
    for (var i = lane; i < params.groups; i += 64u) {
        sum += partials[i];
    }
    let rms = sqrt(workgroup_sum(lane, sum) / f32(params.len));
    let rate = scalar(0u);
    let by = rate / max(1.0, rms / params.threshold);
//#end
    for (var i = first + lane; i < last; i += 64u) {
        var u = g[i] * norm[0].y;
//#if MATRIX
        // Each root by itself: the product could underflow.
        u *= inverseSqrt(row[i / params.cols] / row_mean[0]) * inverseSqrt(col[i % params.cols]);
//#else
        var square = v[i];
//#if APPLY
//#else
        let beta = scalar(3u);
        square = beta * square + (1.0 - beta) * (u * u + params.epsilon);
        v[i] = square;
//#end
        u *= inverseSqrt(square);
//#end
//#if APPLY
        w[i] = w[i] * (1.0 - rate * params.decay) - by * u;
//#end
        sum += u * u;
    }
//#if APPLY
//#else
    sum = workgroup_sum(lane, sum);
    if (group < step.end && lane == 0u) {
        partials[group] = sum;
    }
//#end
}
