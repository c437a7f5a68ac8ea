// gather_rows: y_t = table_{indices_t}, for the indices that lie in this part of the table.
//   table (count, COLS) of FORMAT: rows from `first` on  indices (T)   ->   y (T, COLS)  =
struct Params { rows: u32, first: u32, count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<Stored>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
//#include step
//#include elements

//#if FORMAT
//#include widen
alias Stored = u32;
fn element(i: u32) -> f32 {
    return widen(table[i >> 1u])[i & 1u];
}
//#else
alias Stored = f32;
fn element(i: u32) -> f32 {
    return table[i];
}
//#end

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
        // An index before the part wraps around and is not below its count either.
        let row = indices[m / COLS] - params.first;
        if (row < params.count) {
            y[m] = element(row * COLS + m % COLS);
        }
    }
}
