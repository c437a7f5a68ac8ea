// adafactor_update: Adafactor's update u, lanes along the elements in fours: first its partial sums of squares, then
// (APPLY) the step itself. Does nothing if norm is not finite.
//   g (rows, cols)  norm (1, 4)  MATRIX: row (rows)  col (cols)  row_mean (1), already updated
//   ->   without MATRIX: v (rows, cols)  updated, unless APPLY;  partials (G)  = , read with APPLY;  APPLY: w (rows,
//   cols)  updated
// g *= clip scale,  v = β v + (1 - β) (g² + epsilon),  β = scalar 3,  lr = scalar 0
// u = g / sqrt(row col / row_mean), or g / sqrt(v);  w = w (1 - lr decay) - lr u / max(1, rms(u) / threshold)
// share: vectors of four elements per workgroup
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let clip = norm[0];
    let across = (params.cols + 3u) / 4u;
    let first = group * params.share;
    let last = select(first, min(first + params.share, params.rows * across), clip.z != 0.0 && group < step.end);
//#if APPLY
    var squares = 0.0;
    for (var i = lane; i < params.groups; i += 64u) {
        squares += partials[i];
    }
    let rms = sqrt(workgroup_sum(lane, squares) / (f32(params.rows) * f32(params.cols)));
    let rate = scalar(0u);
    let by = rate / max(1.0, rms / params.threshold);
//#else
    var sums = vec4<f32>();
//#end
    for (var q = first + lane; q < last; q += 64u) {
        let at = q / across * params.cols;
        let k = q % across * 4u;
        let count = min(4u, params.cols - k);
        let d = load_g(at, k, params.cols) * clip.y;
//#if MATRIX
        // Separate roots: the product could underflow.
        let roots = inverseSqrt(row[q / across] / row_mean[0]) * inverseSqrt(load_col(0u, k, params.cols));
//#else
        var square = load_v(at, k, params.cols);
//#if APPLY
//#else
        let beta = scalar(3u);
        square = beta * square + (1.0 - beta) * (d * d + params.epsilon);
        store_v(at + k, square, count);
//#end
        let roots = inverseSqrt(square);
//#end
        // Beyond the end of a row the roots are of 0.
        let u = select(vec4<f32>(), d * roots, vec4(0u, 1u, 2u, 3u) < vec4(count));
//#if APPLY
        store_w(at + k, load_w(at, k, params.cols) * (1.0 - rate * params.decay) - by * u, count);
//#else
        sums += u * u;
//#end
    }
//#if APPLY
//#else
    let sum = workgroup_sum(lane, dot(sums, vec4(1.0)));
    if (group < step.end && lane == 0u) {
        partials[group] = sum;
    }
//#end
}
