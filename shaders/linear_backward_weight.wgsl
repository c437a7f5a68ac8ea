// linear_backward_weight: dw = scale · dyᵀ x over one slice of the rows, a tile of 8 by 8 an invocation.
//   dy (N, O)  x (N, I)   ->   dw (slices, O', I)  = , or dw (O', I)  += (ADD)
// The slices are summed by reduce_slices, in order.
struct Params {
    rows: u32,
    out: u32,       // columns of dy used here: rows of dw from first_row on
    cols: u32,
    stride: u32,    // columns of dy in all
    first_col: u32, // the first of them in dy
    first_row: u32,
    slices: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> dw: array<f32>;
//#include step
//#include tile

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let groups = params.slices;
    let slice = group % groups;
    let tile = tile_of(group / groups, lane, params.cols);
    if (group >= step.end || tile.row >= params.out || tile.col >= params.cols) {
        return;
    }
    let rows = extent(params.rows);
    let share = (rows + params.slices - 1u) / params.slices;
    let first = min(slice * share, rows);
    let last = min(first + share, rows);
    var low: array<vec4<f32>, 8>;
    var high: array<vec4<f32>, 8>;
    var row: array<u32, 8>;
    var col: array<u32, 8>;
    for (var i = 0u; i < 8u; i++) {
        row[i] = params.first_col + min(tile.row + i, params.out - 1u);
        col[i] = min(tile.col + i, params.cols - 1u);
    }
    for (var k = first; k < last; k++) {
        let at_x = k * params.cols;
        let at_y = k * params.stride;
        let x0 = vec4(x[at_x + col[0]], x[at_x + col[1]], x[at_x + col[2]], x[at_x + col[3]]);
        let x1 = vec4(x[at_x + col[4]], x[at_x + col[5]], x[at_x + col[6]], x[at_x + col[7]]);
        for (var i = 0u; i < 8u; i++) {
            let v = dy[at_y + row[i]];
            low[i] += v * x0;
            high[i] += v * x1;
        }
    }
    for (var i = 0u; i < 8u; i++) {
        if (tile.row + i >= params.out) {
            break;
        }
        let out = (params.first_row + slice * params.out + tile.row + i) * params.cols + tile.col;
        for (var j = 0u; j < 8u; j++) {
            if (tile.col + j >= params.cols) {
                break;
            }
            var v = low[i][j & 3u];
            if (j >= 4u) {
                v = high[i][j & 3u];
            }
            v *= params.scale;
//#if ADD
            v += dw[out + j];
//#end
            dw[out + j] = v;
        }
    }
}
