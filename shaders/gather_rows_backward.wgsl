// gather_rows_backward: the gradient of each distinct row gathered, summed in order by the row's own invocations.
//   dy (T, COLS)  rows (U)  offsets (U + 1)  order (T)
//   ->   dtable (count, COLS): rows from `first` on  = or += (ADD)
// dtable_{rows_u} = Σ dy_t over the t in order[offsets_u .. offsets_{u+1}], for the rows_u in this part
struct Params { rows: u32, first: u32, count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read> order: array<u32>;
@group(0) @binding(5) var<storage, read_write> dtable: array<f32>;
//#include step
//#include elements

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
    let these = elements_of(group, extent(params.rows), COLS);
    for (var m = these.first + lane; m < these.last; m += 64u) {
        let u = m / COLS;
        let col = m % COLS;
        let row = rows[u] - params.first;
        if (row < params.count) {
            let out = row * COLS + col;
            var sum = 0.0;
//#if ADD
            sum = dtable[out];
//#end
            for (var i = offsets[u]; i < offsets[u + 1u]; i++) {
                sum += dy[order[i] * COLS + col];
            }
            dtable[out] = sum;
        }
    }
}
