// adafactor_rows: Adafactor's mean of the squared gradient by rows, 16 rows per workgroup, 16 lanes per row.
//   g (rows, cols)  norm (1, 4) of global_norm   ->   row (rows)  updated, unless norm is not finite
// row = β row + (1 - β) (mean over columns of (g * clip scale)² + epsilon),  β = scalar 3

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let first = group * 16u;
    let part = lane & 15u;
    for (var i = lane >> 4u; i < 16u; i += 4u) {
        var squares = vec4<f32>();
        if (first + i < params.rows) {
            for (var col = part * 4u; col < params.cols; col += 64u) {
                let d = load_g((first + i) * params.cols, col, params.cols);
                squares += d * d;
            }
        }
        sums[i * 16u + part] = dot(squares, vec4(1.0));
    }
    workgroupBarrier();
    let r = first + lane;
    if (group >= step.end || lane >= 16u || r >= params.rows || norm[0].z == 0.0) {
        return;
    }
    var sum = 0.0;
    for (var j = 0u; j < 16u; j++) {
        sum += sums[lane * 16u + j];
    }
    let beta = scalar(3u);
    let scale = norm[0].y;
    row[r] = beta * row[r] + (1.0 - beta) * (sum / f32(params.cols) * scale * scale + params.epsilon);
}
