// rmsnorm_forward: y = x inv w, inv = 1 / sqrt(mean(x²) + eps); LANES invocations a row (64 if WIDE, else one).
//   x (N, C)  w (C)   ->   y (N, C)  =   inv (N)  =
struct Params { rows: u32, cols: u32, eps: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> inv: array<f32>;
//#include step
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    if (group >= step.end) {
        return;
    }
    let row = group * (64u / LANES) + lane / LANES;
    let alive = row < extent(params.rows);
    let cols = select(0u, params.cols, alive);
    let at = row * params.cols;
    var sum = 0.0;
    for (var c = lane % LANES; c < cols; c += LANES) {
        sum += x[at + c] * x[at + c];
    }
//#if WIDE
    sum = workgroup_sum(lane, sum);
//#end
    let factor = 1.0 / sqrt(sum / f32(params.cols) + params.eps);
    for (var c = lane % LANES; c < cols; c += LANES) {
        y[at + c] = x[at + c] * factor * w[c];
    }
    if (alive && lane % LANES == 0u) {
        inv[row] = factor;
    }
}
