// adafactor_update: Adafactor's update u, several elements an invocation: first its partial sums of squares, then
// (APPLY) the step itself; nothing where norm says not finite.
//   g (M)  norm (1, 4)  MATRIX: row (rows)  col (cols)  row_mean (1), updated already
//   ->   VECTOR: v (M)  updated, but not with APPLY;  partials (G)  = , or with APPLY read;  APPLY: w (M)  updated
// g *= clip scale,  v = β v + (1 - β) (g² + epsilon),  β = scalar 3,  lr = scalar 0
// u = g / sqrt(row col / row_mean), or g / sqrt(v);  w = w (1 - lr decay) - lr u / max(1, rms(u) / threshold)
struct Params { len: u32, share: u32, cols: u32, groups: u32, epsilon: f32, threshold: f32, decay: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> norm: array<vec4<f32>>;
//#if MATRIX
@group(0) @binding(3) var<storage, read> row: array<f32>;
@group(0) @binding(4) var<storage, read> col: array<f32>;
@group(0) @binding(5) var<storage, read> row_mean: array<f32>;
//#end
//#if VECTOR
@group(0) @binding(3) var<storage, read_write> v: array<f32>;
//#end
@group(0) @binding(4 + 2 * MATRIX) var<storage, read_write> partials: array<f32>;
//#if APPLY
@group(0) @binding(5 + 2 * MATRIX) var<storage, read_write> w: array<f32>;
//#end
//#include step
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
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
//#end
//#if VECTOR
        var square = v[i];
        if (APPLY == 0u) {
            let beta = scalar(3u);
            square = beta * square + (1.0 - beta) * (u * u + params.epsilon);
            v[i] = square;
        }
        u *= inverseSqrt(square);
//#end
//#if APPLY
        w[i] = w[i] * (1.0 - rate * params.decay) - by * u;
//#end
        sum += u * u;
    }
    if (APPLY == 0u) {
        sum = workgroup_sum(lane, sum);
        if (group < step.end && lane == 0u) {
            partials[group] = sum;
        }
    }
}
