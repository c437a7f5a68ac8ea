// linear_backward_input: dx = scale · dy W (+ g A), a tile of 8 by 8 an invocation.
//   dy (N, O)  w (O', I)  g (N, R)  a (R, I)   ->   dx (N, I)  = or += (ADD)
struct Params {
    rows: u32,
    inner: u32,     // columns of dy used here: rows of w from first_row on
    cols: u32,
    stride: u32,    // columns of dy in all
    first_col: u32, // the first of them in dy
    first_row: u32,
    rank: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
//#if LOW_RANK
@group(0) @binding(3) var<storage, read> g: array<f32>;
@group(0) @binding(4) var<storage, read> a: array<f32>;
//#end
@group(0) @binding(3 + 2 * LOW_RANK) var<storage, read_write> dx: array<f32>;
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
    var low: array<vec4<f32>, 8>;
    var high: array<vec4<f32>, 8>;
    var at_y: array<u32, 8>;
    var col: array<u32, 8>;
    for (var i = 0u; i < 8u; i++) {
        at_y[i] = min(tile.row + i, rows - 1u) * params.stride + params.first_col;
        col[i] = min(tile.col + i, params.cols - 1u);
    }
    for (var k = 0u; k < params.inner; k++) {
        let at = (params.first_row + k) * params.cols;
        let w0 = params.scale * vec4(w[at + col[0]], w[at + col[1]], w[at + col[2]], w[at + col[3]]);
        let w1 = params.scale * vec4(w[at + col[4]], w[at + col[5]], w[at + col[6]], w[at + col[7]]);
        for (var i = 0u; i < 8u; i++) {
            let v = dy[at_y[i] + k];
            low[i] += v * w0;
            high[i] += v * w1;
        }
    }
//#if LOW_RANK
    for (var i = 0u; i < 8u; i++) {
        at_y[i] = min(tile.row + i, rows - 1u) * params.rank;
    }
    for (var k = 0u; k < params.rank; k++) {
        let at = (params.first_row + k) * params.cols;
        let w0 = vec4(a[at + col[0]], a[at + col[1]], a[at + col[2]], a[at + col[3]]);
        let w1 = vec4(a[at + col[4]], a[at + col[5]], a[at + col[6]], a[at + col[7]]);
        for (var i = 0u; i < 8u; i++) {
            let v = g[at_y[i] + k];
            low[i] += v * w0;
            high[i] += v * w1;
        }
    }
//#end
    for (var i = 0u; i < 8u; i++) {
        if (tile.row + i >= rows) {
            break;
        }
        let out = (tile.row + i) * params.cols + tile.col;
        for (var j = 0u; j < 8u; j++) {
            if (tile.col + j >= params.cols) {
                break;
            }
            var v = low[i][j & 3u];
            if (j >= 4u) {
                v = high[i][j & 3u];
            }
//#if ADD
            v += dx[out + j];
//#end
            dx[out + j] = v;
        }
    }
}
