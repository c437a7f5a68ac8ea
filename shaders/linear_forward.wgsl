// linear_forward: y = x wᵀ (+ scale · h bᵀ) (+ residual), a tile of 8 by 8 an invocation.
//   x (N, I)  w (O', I)  h (N, R)  b (O, R)  residual (N, O)   ->   y (N, O)  =
struct Params {
    rows: u32,
    inner: u32,
    cols: u32,      // columns of y computed here: rows of w from first_row on
    stride: u32,    // columns of y in all
    first_col: u32, // the first of them in y and in b
    first_row: u32,
    rank: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
//#if LOW_RANK
@group(0) @binding(3) var<storage, read> h: array<f32>;
@group(0) @binding(4) var<storage, read> b: array<f32>;
//#end
//#if RESIDUAL
@group(0) @binding(3 + 2 * LOW_RANK) var<storage, read> residual: array<f32>;
//#end
@group(0) @binding(3 + 2 * LOW_RANK + RESIDUAL) var<storage, read_write> y: array<f32>;
//#include step
//#include tile

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let rows = extent(params.rows);
    let tile = tile_of(group, lane, params.cols);
    if (group >= step.end || tile.row >= rows || tile.col >= params.cols) {
        return;
    }
    var low: array<vec4<f32>, 8>;  // columns 0 to 3 of each row
    var high: array<vec4<f32>, 8>; // columns 4 to 7
    var at_x: array<u32, 8>;
    var at_w: array<u32, 8>;
    for (var i = 0u; i < 8u; i++) {
        at_x[i] = min(tile.row + i, rows - 1u) * params.inner;
        at_w[i] = (params.first_row + min(tile.col + i, params.cols - 1u)) * params.inner;
    }
    for (var k = 0u; k < params.inner; k++) {
        let w0 = vec4(w[at_w[0] + k], w[at_w[1] + k], w[at_w[2] + k], w[at_w[3] + k]);
        let w1 = vec4(w[at_w[4] + k], w[at_w[5] + k], w[at_w[6] + k], w[at_w[7] + k]);
        for (var i = 0u; i < 8u; i++) {
            let v = x[at_x[i] + k];
            low[i] += v * w0;
            high[i] += v * w1;
        }
    }
//#if LOW_RANK
    for (var i = 0u; i < 8u; i++) {
        at_x[i] = min(tile.row + i, rows - 1u) * params.rank;
        at_w[i] = (params.first_col + min(tile.col + i, params.cols - 1u)) * params.rank;
    }
    for (var k = 0u; k < params.rank; k++) {
        let w0 = params.scale * vec4(b[at_w[0] + k], b[at_w[1] + k], b[at_w[2] + k], b[at_w[3] + k]);
        let w1 = params.scale * vec4(b[at_w[4] + k], b[at_w[5] + k], b[at_w[6] + k], b[at_w[7] + k]);
        for (var i = 0u; i < 8u; i++) {
            let v = h[at_x[i] + k];
            low[i] += v * w0;
            high[i] += v * w1;
        }
    }
//#end
    for (var i = 0u; i < 8u; i++) {
        if (tile.row + i >= rows) {
            break;
        }
        let out = (tile.row + i) * params.stride + params.first_col + tile.col;
        for (var j = 0u; j < 8u; j++) {
            if (tile.col + j >= params.cols) {
                break;
            }
            var v = low[i][j & 3u];
            if (j >= 4u) {
                v = high[i][j & 3u];
            }
//#if RESIDUAL
            v += residual[out + j];
//#end
            y[out + j] = v;
        }
    }
}
