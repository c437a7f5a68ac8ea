// A product for CPUs: sums[row, col] = Σ over terms and k of left(term, row, k) · right(term, col, k), unrolled in the
// source.
// A tile is LANES · TILE_ROWS rows by TILE_COLS columns; a lane has TILE_ROWS of the rows, LANES apart. With SUBGROUP,
// the lanes load the columns' elements together and share them; otherwise each lane loads all of them. A workgroup has
// WORKGROUP / LANES tiles, one below the other. The functions of the kernel, and PAIRED, are as in product_tiled. With
// NORM, the first term's rows are multiplied by `norm_weight_at(k)`, and their sums are divided by the root mean square
// of the row, whose inverse is passed to `save_inverse_rms`.
// Columns of y per tile.
const TILE_WIDTH = select(TILE_COLS, TILE_COLS / 2u, PAIRED);

// The index, for `right`, of column c of the tile that begins at tile_col.
fn tile_column(tile_col: u32, c: u32) -> u32 {
    let col = min(tile_col + c % TILE_WIDTH, cols() - 1u);
    return select(col, col + cols(), c >= TILE_WIDTH);
}

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
    let across = (cols() + TILE_WIDTH - 1u) / TILE_WIDTH;
    let tile_col = group % across * TILE_WIDTH;
    let tile_row = (group / across * (WORKGROUP / LANES) + part) * (LANES * TILE_ROWS);
    if (group >= step.end || tile_row >= rows()) {
        return;
    }
//#for a in TILE_ROWS
    let row${a} = tile_row + ${a}u * LANES + lane;
    let left_row${a} = min(row${a}, rows() - 1u);
//#end
    var sums: array<vec4<f32>, TILE_ROWS * TILE_COLS / 4u>;
//#if NORM
    var squares: array<f32, TILE_ROWS>;
//#end
//#for term in TERMS
    for (var k = 0u; k < inner(${term}u); k += 4u) {
//#for a in TILE_ROWS
        var left${a} = left(${term}u, left_row${a}, k);
//#if NORM
        squares[${a}] += dot(left${a}, left${a});
        left${a} *= norm_weight_at(k);
//#end
//#end
//#if SUBGROUP
//#for b in TILE_COLS / LANES
        let right${b} = right(${term}u, tile_column(tile_col, ${b}u * LANES + lane), k);
//#for l in LANES
        {
            let v = subgroupBroadcast(right${b}, ${l}u);
//#for a in TILE_ROWS
            {
                let sum = sums[${a}u * (TILE_COLS / 4u) + (${b}u * LANES + ${l}u) / 4u][${l}u % 4u];
                sums[${a}u * (TILE_COLS / 4u) + (${b}u * LANES + ${l}u) / 4u][${l}u % 4u] = fma(left${a}.w, v.w, fma(left${a}.z, v.z, fma(left${a}.y, v.y, fma(left${a}.x, v.x, sum))));
            }
//#end
        }
//#end
//#end
//#else
//#for c in TILE_COLS
        {
            let v = right(${term}u, tile_column(tile_col, ${c}u), k);
//#for a in TILE_ROWS
            {
                let sum = sums[${a}u * (TILE_COLS / 4u) + ${c}u / 4u][${c}u % 4u];
                sums[${a}u * (TILE_COLS / 4u) + ${c}u / 4u][${c}u % 4u] = fma(left${a}.w, v.w, fma(left${a}.z, v.z, fma(left${a}.y, v.y, fma(left${a}.x, v.x, sum))));
            }
//#end
        }
//#end
//#end
    }
//#end
    // Loops, not unrolled text, and with a count that compilers cannot unroll: finishing a result is long code, and
    // compilers for CPUs take long for every copy of it. The next sums are always in the same place: an array that is
    // indexed by a variable would not stay in registers.
    let row_end = min(tile_row + LANES * TILE_ROWS, rows());
    let col_end = min(tile_col + TILE_WIDTH, cols());
    for (var row = tile_row + lane; row < row_end; row += LANES) {
//#if NORM
        let inverse = 1.0 / sqrt(squares[0] / f32(inner(0u)) + params.eps);
        if (tile_col == 0u) {
            save_inverse_rms(row, inverse);
        }
//#else
        let inverse = 1.0;
//#end
        var results: array<vec4<f32>, TILE_COLS / 4u>;
//#for q in TILE_COLS / 4
        results[${q}] = inverse * sums[${q}];
//#end
        for (var col = tile_col; col < col_end; col += 4u) {
//#if PAIRED
            finish_pair(row, col, results[0], results[TILE_COLS / 8u]);
//#else
            finish(row, col, results[0]);
//#end
//#for q in TILE_COLS / 4
            results[${q}] = results[min(${q}u + 1u, TILE_COLS / 4u - 1u)];
//#end
        }
        if (TILE_ROWS > 1u) {
//#for i in TILE_ROWS * TILE_COLS / 4
            sums[${i}] = sums[min(${i}u + TILE_COLS / 4u, TILE_ROWS * TILE_COLS / 4u - 1u)];
//#end
//#if NORM
//#for a in TILE_ROWS
            squares[${a}] = squares[min(${a}u + 1u, TILE_ROWS - 1u)];
//#end
//#end
        }
    }
}
