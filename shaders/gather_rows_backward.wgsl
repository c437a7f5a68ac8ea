// gather_rows_backward: the gradient of each distinct gathered row, summed in order by the row's own invocations.
//   dy (T, COLS)  rows (U)  offsets (U + 1)  order (T)
//   ->   dtable (count, COLS): rows from `first` on  = or += (ADD)
// dtable_{rows_u} = scale · Σ dy_t over the t in order[offsets_u .. offsets_{u+1}], for the rows_u in this part
//#include elements

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    if (group >= step.end) {
        return;
    }
    let these = quads_of(group, extent(params.rows), COLS);
    for (var q = these.first + lane; q < these.last; q += 64u) {
        let u = q / these.across;
        let col = q % these.across * 4u;
        let row = rows[u] - params.first;
        if (row < params.count) {
            let at = row * COLS + col;
            let count = min(4u, COLS - col);
            var sum = vec4(0.0);
            for (var i = offsets[u]; i < offsets[u + 1u]; i++) {
                sum += load_dy(order[i] * COLS, col, COLS);
            }
            sum *= params.scale;
//#if ADD
            sum += load_dtable(at, 0u, count);
//#end
            store_dtable(at, sum, count);
        }
    }
}
