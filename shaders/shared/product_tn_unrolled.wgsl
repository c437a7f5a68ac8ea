// A product for CPUs: sums[row, col] = Σ over k of left(0, row, k) · right(0, col, k), where left returns four rows
// from `row` on and right four columns from `col` on, at k; over the k of a slice, of which there are slices();
// unrolled in the source. A tile is 4 · LANES rows by TILE_COLS columns; a lane has four consecutive rows. Lanes and
// SUBGROUP as in product_nt_unrolled.
@compute @workgroup_size(WORKGROUP)
fn main(
    workgroup: Workgroup,
//#if SUBGROUP
    @builtin(subgroup_id) part: u32,
    @builtin(subgroup_invocation_id) lane: u32,
//#else
    @builtin(local_invocation_index) local: u32,
//#end
) {
//#if SUBGROUP
//#else
    let part = local / LANES;
    let lane = local % LANES;
//#end
    let group = group_index(workgroup);
    let slice = group % slices();
    let tile = group / slices();
    let across = (cols() + TILE_COLS - 1u) / TILE_COLS;
    let tile_col = tile % across * TILE_COLS;
    let tile_row = (tile / across * (WORKGROUP / LANES) + part) * (LANES * 4u);
    if (group >= step.end || tile_row >= rows()) {
        return;
    }
    let row = tile_row + lane * 4u;
    let left_quad = min(row, (rows() - 1u) / 4u * 4u);
    let last_quad = (cols() - 1u) / 4u * 4u;
    let share = (inner(0u) + slices() - 1u) / slices();
    let end = min((slice + 1u) * share, inner(0u));
    var sums: array<vec4<f32>, TILE_COLS>;
    for (var k = slice * share; k < end; k += K_STEP) {
//#if SUBGROUP
        // A lane loads four columns for one of the K_STEP k.
        let k_here = min(k + lane / (TILE_COLS / 4u), end - 1u);
        let quad_here = min(tile_col + lane % (TILE_COLS / 4u) * 4u, last_quad);
        let right_here = right(0u, quad_here, k_here);
//#end
//#for t in K_STEP
        if (k + ${t}u < end) {
            let left_here = left(0u, left_quad, k + ${t}u);
//#for q in TILE_COLS / 4
            {
//#if SUBGROUP
                let v = subgroupBroadcast(right_here, ${t}u * (TILE_COLS / 4u) + ${q}u);
//#else
                let v = right(0u, min(tile_col + ${q}u * 4u, last_quad), k + ${t}u);
//#end
//#for a in 4
                sums[${a}u * (TILE_COLS / 4u) + ${q}u] = fma(vec4(left_here[${a}]), v, sums[${a}u * (TILE_COLS / 4u) + ${q}u]);
//#end
            }
//#end
        }
//#end
    }
    // Loops as in product_nt_unrolled, for the same reasons.
    let row_end = min(row + 4u, rows());
    let col_end = min(tile_col + TILE_COLS, cols());
    for (var r = row; r < row_end; r++) {
        var results: array<vec4<f32>, TILE_COLS / 4u>;
//#for q in TILE_COLS / 4
        results[${q}] = sums[${q}];
//#end
        for (var col = tile_col; col < col_end; col += 4u) {
            finish_slice(slice, r, col, results[0]);
//#for q in TILE_COLS / 4
            results[${q}] = results[min(${q}u + 1u, TILE_COLS / 4u - 1u)];
//#end
        }
//#for i in TILE_COLS
        sums[${i}] = sums[min(${i}u + TILE_COLS / 4u, TILE_COLS - 1u)];
//#end
    }
}
