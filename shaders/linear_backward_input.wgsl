// linear_backward_input: dx = scale · dy W (+ g A).
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
//#include element
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<Element>;
@group(0) @binding(2) var<storage, read> w: array<Element>;
//#if LOW_RANK
@group(0) @binding(3) var<storage, read> g: array<Element>;
@group(0) @binding(4) var<storage, read> a: array<Element>;
//#end
@group(0) @binding(3 + 2 * LOW_RANK) var<storage, read_write> dx: array<Element>;
//#include step
//#include tile
//#include load NAME=dy
//#include load NAME=w
//#if LOW_RANK
//#include load NAME=g
//#include load NAME=a
//#end

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
//#include tile_lane
    let group = group_index(id, count);
    let rows = extent(params.rows);
    let tile = tile_of(group, part, params.cols);
    if (group >= step.end || tile.row >= rows) {
        return;
    }
//#include tile_rows
    let last_quad = (params.cols - 1u) / 4u * 4u;
//#include product_cols LEFT=dy LEFT_STRIDE=params.stride LEFT_FIRST=params.first_col RIGHT=w RIGHT_FIRST=params.first_row INNER=params.inner SCALE=params.scale
//#if LOW_RANK
//#include product_cols LEFT=g LEFT_STRIDE=params.rank LEFT_FIRST=0u RIGHT=a RIGHT_FIRST=0u INNER=params.rank SCALE=1.0
//#end
//#include tile_store OUT=dx STRIDE=params.cols FIRST=0u ADD=ADD FROM=dx
}
