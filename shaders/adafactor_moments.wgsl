// adafactor_moments: finishes what adafactor_cols and adafactor_rows began, an invocation a column.
//   partials (slices, cols) of adafactor_cols  norm (1, 4)  row (rows) updated already
//   ->   col (cols)  updated, but not where norm says not finite;  row_mean (1)  =
// col = β col + (1 - β) (mean over rows of (g * clip scale)² + epsilon),  β = scalar 3,  row_mean = mean of row
struct Params { rows: u32, cols: u32, slices: u32, epsilon: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read> norm: array<vec4<f32>>;
// Only read, but it may share a buffer with col, which may be bound in one way alone.
@group(0) @binding(3) var<storage, read_write> row: array<f32>;
@group(0) @binding(4) var<storage, read_write> col: array<f32>;
@group(0) @binding(5) var<storage, read_write> row_mean: array<f32>;
//#include step
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let c = group * 64u + lane;
    if (group < step.end && c < params.cols && norm[0].z != 0.0) {
        var sum = 0.0;
        for (var s = 0u; s < params.slices; s++) {
            sum += partials[s * params.cols + c];
        }
        let beta = scalar(3u);
        let scale = norm[0].y;
        col[c] = beta * col[c] + (1.0 - beta) * (sum / f32(params.rows) * scale * scale + params.epsilon);
    }
    // The first workgroup also takes the mean of the rows.
    var sum = 0.0;
    let rows = select(0u, params.rows, group == 0u);
    for (var r = lane; r < rows; r += 64u) {
        sum += row[r];
    }
    sum = workgroup_sum(lane, sum);
    if (group == 0u && lane == 0u) {
        row_mean[0] = sum / f32(params.rows);
    }
}
