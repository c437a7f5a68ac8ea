// residual_add: y = a + b, four elements an invocation.
//   a, b (N, C)   ->   y (N, C)  = or += (ADD); without TWO there is no b
struct Params { rows: u32, cols: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
//#if TWO
@group(0) @binding(2) var<storage, read> b: array<f32>;
//#end
@group(0) @binding(2 + TWO) var<storage, read_write> y: array<f32>;
//#include step

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let len = extent(params.rows) * params.cols;
    if (group >= step.end) {
        return;
    }
    // A workgroup takes four rows.
    let first = group * 4u * params.cols;
    let last = min(first + 4u * params.cols, len);
    for (var m = first + lane; m < last; m += 64u) {
        var v = a[m];
//#if TWO
        v += b[m];
//#end
//#if ADD
        v += y[m];
//#end
        y[m] = v;
    }
}
