// A product for CPUs: sums[row, col] = Σ over terms and k of left(term, row, k) · right(term, col, k), where right
// returns four columns from `col` on at k; unrolled in the source. Tiles, lanes and SUBGROUP as in product_nt_unrolled.
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
    let across = (cols() + TILE_COLS - 1u) / TILE_COLS;
    let tile_col = group % across * TILE_COLS;
    let tile_row = (group / across * (WORKGROUP / LANES) + part) * (LANES * TILE_ROWS);
    if (group >= step.end || tile_row >= rows()) {
        return;
    }
    let last_quad = (cols() - 1u) / 4u * 4u;
//#for a in TILE_ROWS
    let row${a} = tile_row + ${a}u * LANES + lane;
    let left_row${a} = min(row${a}, rows() - 1u);
//#end
    var sums: array<vec4<f32>, TILE_ROWS * TILE_COLS / 4u>;
//#for term in TERMS
    for (var k = 0u; k < inner(${term}u); k += 4u) {
//#for a in TILE_ROWS
        let left${a} = left(${term}u, left_row${a}, k);
//#end
//#if SUBGROUP
//#for b in TILE_COLS / LANES
        // A lane loads four columns for one of the four k.
        let k${b} = min(k + (${b}u * LANES + lane) / (TILE_COLS / 4u), inner(${term}u) - 1u);
        let quad${b} = tile_col + (${b}u * LANES + lane) % (TILE_COLS / 4u) * 4u;
        let right${b} = right(${term}u, min(quad${b}, last_quad), k${b});
//#for l in LANES
        {
            let v = subgroupBroadcast(right${b}, ${l}u);
//#for a in TILE_ROWS
            sums[${a}u * (TILE_COLS / 4u) + (${b}u * LANES + ${l}u) % (TILE_COLS / 4u)] = fma(vec4(left${a}[(${b}u * LANES + ${l}u) / (TILE_COLS / 4u)]), v,
                sums[${a}u * (TILE_COLS / 4u) + (${b}u * LANES + ${l}u) % (TILE_COLS / 4u)]);
//#end
        }
//#end
//#end
//#else
//#for t in 4
//#for q in TILE_COLS / 4
        {
            let v = right(${term}u, min(tile_col + ${q}u * 4u, last_quad), min(k + ${t}u, inner(${term}u) - 1u));
//#for a in TILE_ROWS
            sums[${a}u * (TILE_COLS / 4u) + ${q}u] = fma(vec4(left${a}[${t}]), v, sums[${a}u * (TILE_COLS / 4u) + ${q}u]);
//#end
        }
//#end
//#end
//#end
    }
//#end
    // Loops as in product_nt_unrolled, for the same reasons.
    let row_end = min(tile_row + LANES * TILE_ROWS, rows());
    let col_end = min(tile_col + TILE_COLS, cols());
    for (var row = tile_row + lane; row < row_end; row += LANES) {
        var results: array<vec4<f32>, TILE_COLS / 4u>;
//#for q in TILE_COLS / 4
        results[${q}] = sums[${q}];
//#end
        for (var col = tile_col; col < col_end; col += 4u) {
            finish(row, col, results[0]);
//#for q in TILE_COLS / 4
            results[${q}] = results[min(${q}u + 1u, TILE_COLS / 4u - 1u)];
//#end
        }
        if (TILE_ROWS > 1u) {
//#for i in TILE_ROWS * TILE_COLS / 4
            sums[${i}] = sums[min(${i}u + TILE_COLS / 4u, TILE_ROWS * TILE_COLS / 4u - 1u)];
//#end
        }
    }
}
