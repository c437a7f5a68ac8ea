// adafactor_moments: completes the results of adafactor_cols and adafactor_rows, one column per invocation.
//   partials (slices, cols) of adafactor_cols  norm (1, 4)  row (rows), already updated
//   ->   col (cols)  updated, unless norm is not finite;  row_mean (1)  =
// col = β col + (1 - β) (mean over rows of (g * clip scale)² + epsilon),  β = scalar 3,  row_mean = mean of row
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
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
    // The first workgroup also computes the mean of the rows.
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
