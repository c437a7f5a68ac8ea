// gather_rows: y_t = scale · table_{indices_t}, for the indices in this part of the table.
//   table (count, COLS): rows from `first` on  indices (T), or BY_POSITION spans (T, 4)   ->   y (T, COLS)  =
// before: number of keys that precede those of every span
//#include elements
//#if BY_POSITION
//#include spans
//#end

fn index_of(t: u32) -> u32 {
//#if BY_POSITION
    return extent(params.before) + max(key_count(spans[t]), 1u) - 1u;
//#else
    return indices[t];
//#end
}

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    if (group >= step.end) {
        return;
    }
    let these = quads_of(group, extent(params.rows), COLS);
    for (var q = these.first + lane; q < these.last; q += 64u) {
        // An index before the part wraps around, and so is not below the count either.
        let row = index_of(q / these.across) - params.first;
        if (row < params.count) {
            let col = q % these.across * 4u;
            let count = min(4u, COLS - col);
            store_y(q / these.across * COLS + col, params.scale * load_table(row * COLS, col, COLS), count);
        }
    }
}
