// scatter_rows: y[rows[n]] = x[n]; a row number of 0xffffffff is left out. Four rows a workgroup.
//   x (N, C)  rows (N)   ->   y (M, C)  = at those rows, which differ
struct Params { rows: u32, cols: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
//#include step

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
    let first = group * 4u * params.cols;
    let last = min(group * 4u + 4u, extent(params.rows)) * params.cols;
    for (var m = first + lane; m < last; m += 64u) {
        let row = rows[m / params.cols];
        if (row != 0xffffffffu) {
            y[row * params.cols + m % params.cols] = x[m];
        }
    }
}
