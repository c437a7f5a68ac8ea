// A product with cooperative matrices: sums[row, col] = Σ over terms and k of left(term, row, k) · right(term, col, k),
// the first term in f16 with f32 sums, the second in f32. For matrices `right` that are stored as f16.
// A workgroup is one subgroup. Its tile is LANES · TILE_ROWS rows by TILE_COLS columns, HEIGHT by WIDTH matrices of
// SIZE by SIZE; a lane has TILE_ROWS of the rows, LANES apart. The functions of the kernel, PAIRED and NORM are as in
// product_nt_unrolled.
// The largest f16 is 65504, so each row is divided by the power of two that brings its largest element into [2^14,
// 2^15), and its sums are multiplied by it again. Staging pads ragged shapes to whole matrices; elements beyond the
// ends are zeros.
//#if EIGHT
alias LeftMatrix = coop_mat8x8<f16, A>;
alias RightMatrix = coop_mat8x8<f16, B>;
alias SumMatrix = coop_mat8x8<f32, C>;
//#else
alias LeftMatrix = coop_mat16x16<f16, A>;
alias RightMatrix = coop_mat16x16<f16, B>;
alias SumMatrix = coop_mat16x16<f32, C>;
//#end
// SIZE elements along k of every row and of every column of the tile, then the sums.
var<workgroup> left_stage: array<f16, LANES * TILE_ROWS * SIZE>;
var<workgroup> right_stage: array<f16, TILE_COLS * SIZE>;
var<workgroup> sum_stage: array<f32, LANES * TILE_ROWS * TILE_COLS>;

// Columns of y per tile.
const TILE_WIDTH = select(TILE_COLS, TILE_COLS / 2u, PAIRED);

// The index, for `right`, of column c of the tile that begins at tile_col.
fn tile_column(tile_col: u32, c: u32) -> u32 {
    let col = min(tile_col + c % TILE_WIDTH, cols() - 1u);
    return select(col, col + cols(), c >= TILE_WIDTH);
}

// Elements k to k + 3 of row `row` of the first term, as they are multiplied.
fn weighed(row: u32, k: u32) -> vec4<f32> {
//#if NORM
    return left(0u, row, k) * norm_weight_at(k);
//#else
    return left(0u, row, k);
//#end
}

@compute @workgroup_size(LANES)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let across = (cols() + TILE_WIDTH - 1u) / TILE_WIDTH;
    let tile_col = group % across * TILE_WIDTH;
    let tile_row = group / across * (LANES * TILE_ROWS);
    if (group >= step.end || tile_row >= rows()) {
        return;
    }
    var squares: array<f32, TILE_ROWS>;
    var to_stage: array<f32, TILE_ROWS>;
    var from_stage: array<f32, TILE_ROWS>;
    for (var a = 0u; a < TILE_ROWS; a++) {
        let row = min(tile_row + a * LANES + lane, rows() - 1u);
        var largest = 0.0;
        for (var k = 0u; k < inner(0u); k += 4u) {
//#if NORM
            let raw = left(0u, row, k);
            squares[a] += dot(raw, raw);
//#end
            let size = abs(weighed(row, k));
            largest = max(largest, max(max(size.x, size.y), max(size.z, size.w)));
        }
        // The biased exponent: the power is 2^(exponent - 127 - 14).
        let exponent = clamp(bitcast<u32>(largest) >> 23u, 15u, 254u);
        to_stage[a] = bitcast<f32>((268u - exponent) << 23u);
        from_stage[a] = bitcast<f32>((exponent - 14u) << 23u);
    }
//#for i in HEIGHT
//#for j in WIDTH
    var sum${i}_${j} = SumMatrix();
//#end
//#end
    for (var k = 0u; k < inner(0u); k += SIZE) {
        workgroupBarrier();
        for (var q = 0u; q < SIZE; q += 4u) {
            let inside = k + q < inner(0u);
            let at = select(0u, k + q, inside);
            for (var a = 0u; a < TILE_ROWS; a++) {
                let row = min(tile_row + a * LANES + lane, rows() - 1u);
                let part = select(vec4<f32>(), weighed(row, at) * to_stage[a], inside);
                for (var i = 0u; i < 4u; i++) {
                    left_stage[(a * LANES + lane) * SIZE + q + i] = f16(part[i]);
                }
            }
        }
        for (var c = lane; c < TILE_COLS * SIZE / 4u; c += LANES) {
            let q = c % (SIZE / 4u) * 4u;
            let inside = k + q < inner(0u);
            let all = right(0u, tile_column(tile_col, c / (SIZE / 4u)), select(0u, k + q, inside));
            let part = select(vec4<f32>(), all, inside);
            for (var i = 0u; i < 4u; i++) {
                right_stage[c * 4u + i] = f16(part[i]);
            }
        }
        workgroupBarrier();
//#for j in WIDTH
        // The elements of a column are contiguous.
        let right${j} = coopLoad<RightMatrix>(&right_stage[${j}u * SIZE * SIZE], SIZE);
//#end
//#for i in HEIGHT
        {
            let left_matrix = coopLoadT<LeftMatrix>(&left_stage[${i}u * SIZE * SIZE], SIZE);
//#for j in WIDTH
            sum${i}_${j} = coopMultiplyAdd(left_matrix, right${j}, sum${i}_${j});
//#end
        }
//#end
    }
//#for i in HEIGHT
//#for j in WIDTH
    coopStoreT(sum${i}_${j}, &sum_stage[${i}u * SIZE * TILE_COLS + ${j}u * SIZE], TILE_COLS);
//#end
//#end
    workgroupBarrier();
    for (var a = 0u; a < TILE_ROWS; a++) {
        let row = tile_row + a * LANES + lane;
        var sums: array<vec4<f32>, TILE_COLS / 4u>;
        for (var c = 0u; c < TILE_COLS; c++) {
            sums[c / 4u][c % 4u] = sum_stage[(a * LANES + lane) * TILE_COLS + c] * from_stage[a];
        }
//#if NORM
        let inverse = 1.0 / sqrt(squares[a] / f32(inner(0u)) + params.eps);
        for (var q = 0u; q < TILE_COLS / 4u; q++) {
            sums[q] *= inverse;
        }
        if (tile_col == 0u && row < rows()) {
            save_inverse_rms(row, inverse);
        }
//#end
        for (var term = 1u; term < TERMS; term++) {
            for (var k = 0u; k < inner(term); k += 4u) {
                let x = left(term, min(row, rows() - 1u), k);
                for (var c = 0u; c < TILE_COLS; c++) {
                    sums[c / 4u][c % 4u] += dot(x, right(term, tile_column(tile_col, c), k));
                }
            }
        }
        if (row < rows()) {
//#if PAIRED
            for (var i = 0u; i < TILE_COLS / 8u; i++) {
                if (tile_col + i * 4u < cols()) {
                    finish_pair(row, tile_col + i * 4u, sums[i], sums[TILE_COLS / 8u + i]);
                }
            }
//#else
            for (var q = 0u; q < TILE_COLS / 4u; q++) {
                if (tile_col + q * 4u < cols()) {
                    finish(row, tile_col + q * 4u, sums[q]);
                }
            }
//#end
        }
    }
}
