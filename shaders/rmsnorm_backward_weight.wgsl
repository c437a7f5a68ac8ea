// rmsnorm_backward_weight: dw = Σ dy x inv over one slice of the rows, a column an invocation.
//   dy, x (N, C)  inv (N) saved by rmsnorm_forward   ->   dw (slices, C)  = , or dw (C)  += (ADD)
// The slices are summed by reduce_slices, in order.
struct Params { rows: u32, cols: u32, slices: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> inv: array<f32>;
@group(0) @binding(4) var<storage, read_write> dw: array<f32>;
//#include step

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let slice = group % params.slices;
    let col = group / params.slices * 64u + lane;
    if (group >= step.end || col >= params.cols) {
        return;
    }
    let rows = extent(params.rows);
    let share = (rows + params.slices - 1u) / params.slices;
    let first = min(slice * share, rows);
    let last = min(first + share, rows);
    var sum = 0.0;
    for (var n = first; n < last; n++) {
        sum += dy[n * params.cols + col] * x[n * params.cols + col] * inv[n];
    }
    let out = slice * params.cols + col;
//#if ADD
    sum += dw[out];
//#end
    dw[out] = sum;
}
