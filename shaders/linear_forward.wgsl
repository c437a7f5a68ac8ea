// linear_forward: y = x_scale · x wᵀ (+ scale · h bᵀ) (+ residual), where with NORM x stands for x gain / rms,
// rms = sqrt(mean(x²) + eps).
//   x (N, I)  w (O', I)  gain (I)  h (N, R)  b (O, R)  residual (N, O)   ->   y (N, O)  =
struct Params {
    rows: u32,
    inner: u32,
    cols: u32,      // columns of y computed here: rows of w from first_row on
    stride: u32,    // columns of y in all
    first_col: u32, // the first of them in y
    first_row: u32,
    b_row: u32,     // the first of them in b
    rank: u32,
    scale: f32,
    eps: f32,
    x_scale: f32,
}
//#include element
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> w: array<Weight>;
//#if NORM
@group(0) @binding(3) var<storage, read> gain: array<Element>;
//#end
//#if LOW_RANK
@group(0) @binding(3 + NORM) var<storage, read> h: array<Element>;
@group(0) @binding(4 + NORM) var<storage, read> b: array<Element>;
//#end
//#if RESIDUAL
@group(0) @binding(3 + NORM + 2 * LOW_RANK) var<storage, read> residual: array<Element>;
//#end
@group(0) @binding(3 + NORM + 2 * LOW_RANK + RESIDUAL) var<storage, read_write> y: array<Element>;
//#include step
//#include tile
//#include load NAME=x
//#include load_weight NAME=w
//#if NORM
//#include load NAME=gain
//#end
//#if LOW_RANK
//#include load NAME=h
//#include load NAME=b
//#end

// The row of w, of b, for column c of a tile.
fn w_row(tile_col: u32, c: u32) -> u32 {
    return params.first_row + min(tile_col + c, params.cols - 1u);
}
fn b_row(tile_col: u32, c: u32) -> u32 {
    return params.b_row + min(tile_col + c, params.cols - 1u);
}

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
//#include product_weight LEFT=x RIGHT=w ROW=w_row INNER=params.inner
//#include normalise
//#for i in TILE_SIZE
    acc[${i}] *= params.x_scale;
//#end
//#if LOW_RANK
//#include product_rows LEFT=h RIGHT=b ROW=b_row INNER=params.rank SCALE=params.scale
//#end
//#include tile_store OUT=y STRIDE=params.stride FIRST=params.first_col ADD=RESIDUAL FROM=residual
}
