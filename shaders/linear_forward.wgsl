// linear_forward: y = x wᵀ (+ scale · h bᵀ) (+ residual).
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
//#include element
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> w: array<Element>;
//#if LOW_RANK
@group(0) @binding(3) var<storage, read> h: array<Element>;
@group(0) @binding(4) var<storage, read> b: array<Element>;
//#end
//#if RESIDUAL
@group(0) @binding(3 + 2 * LOW_RANK) var<storage, read> residual: array<Element>;
//#end
@group(0) @binding(3 + 2 * LOW_RANK + RESIDUAL) var<storage, read_write> y: array<Element>;
//#include step
//#include tile
//#include load NAME=x
//#include load NAME=w
//#if LOW_RANK
//#include load NAME=h
//#include load NAME=b
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
//#for a in DOWN
    let row${a} = tile.row + ${a}u * LANES + lane;
//#end
    var acc: array<vec4<f32>, DOWN * QUADS>;
//#include product_rows LEFT=x RIGHT=w FIRST=params.first_row INNER=params.inner SCALE=1.0
//#if LOW_RANK
//#include product_rows LEFT=h RIGHT=b FIRST=params.first_col INNER=params.rank SCALE=params.scale
//#end
//#include tile_store OUT=y STRIDE=params.stride FIRST=params.first_col ADD=RESIDUAL FROM=residual
}
