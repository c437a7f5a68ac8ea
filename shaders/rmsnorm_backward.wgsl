// rmsnorm_backward: dx for y = x inv w; LANES invocations a row (64 if WIDE, else one).
//   dy, x (N, C)  w (C)  inv (N) saved by rmsnorm_forward   ->   dx (N, C)  = or += (ADD)
// dx = inv (g - x inv² mean(g x)),  g = dy w
struct Params { rows: u32, cols: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> inv: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;
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
    let cols = select(0u, params.cols, row < extent(params.rows));
    let at = row * params.cols;
    var sum = 0.0;
    for (var c = lane % LANES; c < cols; c += LANES) {
        sum += dy[at + c] * w[c] * x[at + c];
    }
//#if WIDE
    sum = workgroup_sum(lane, sum);
//#end
    if (cols == 0u) {
        return;
    }
    let factor = inv[row];
    let pull = factor * factor * sum / f32(cols);
    for (var c = lane % LANES; c < cols; c += LANES) {
        var v = factor * (dy[at + c] * w[c] - x[at + c] * pull);
//#if ADD
        v += dx[at + c];
//#end
        dx[at + c] = v;
    }
}
