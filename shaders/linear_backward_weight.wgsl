// linear_backward_weight: dw = scale · dyᵀ x over one slice of the rows; with NORM x stands for x inv gain.
//   dy (N, O)  x (N, I)  inv (N)  gain (I)   ->   dw (slices, O', I)  = , or dw (O', I)  += (ADD)
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
//#include element
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<Element>;
@group(0) @binding(2) var<storage, read> x: array<Element>;
//#if NORM
@group(0) @binding(3) var<storage, read> inv: array<f32>;
@group(0) @binding(4) var<storage, read> gain: array<Element>;
//#end
@group(0) @binding(3 + 2 * NORM) var<storage, read_write> dw: array<Element>;
//#include step
//#include tile
//#include load NAME=dy
//#include load NAME=x
//#if NORM
//#include load NAME=gain
//#end

// Four columns of one of the TERMS rows of x from n on: lane l has the l-th vector of them.
fn load_right(n: u32, last: u32, tile_col: u32, lane: u32, last_quad: u32) -> vec4<f32> {
    let term = min(n + lane / QUADS, last - 1u);
    let v = load_x(term * params.cols, min(tile_col + lane % QUADS * 4u, last_quad), params.cols);
//#if NORM
    return v * inv[term];
//#else
    return v;
//#end
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
//#include tile_lane
    let group = group_index(id, count);
    let slice = group % params.slices;
    let tile = tile_of(group / params.slices, part, params.cols);
    if (group >= step.end || tile.row >= params.out) {
        return;
    }
    let all = extent(params.rows);
    let share = (all + params.slices - 1u) / params.slices;
    let first = min(slice * share, all);
    let last = min(first + share, all);
    // A lane has four consecutive rows of dw: four columns of dy.
    let row = tile.row + lane * 4u;
    let left_quad = min(row, (params.out - 1u) / 4u * 4u);
    let last_quad = (params.cols - 1u) / 4u * 4u;
    var acc: array<vec4<f32>, TILE_SIZE>;
    for (var n = first; n < last; n += TERMS) {
//#if STAGED
        workgroupBarrier();
        stage[lane] = load_right(n, last, tile.col, lane, last_quad);
        workgroupBarrier();
//#end
//#if SUBGROUP
        let right = load_right(n, last, tile.col, lane, last_quad);
//#end
//#for t in TERMS
        if (n + ${t}u < last) {
            let left = load_dy((n + ${t}u) * params.stride + params.first_col, left_quad, params.out);
//#for q in QUADS
            {
//#if SUBGROUP
                let v = subgroupBroadcast(right, ${t}u * QUADS + ${q}u);
//#else
//#if STAGED
                let v = stage[${t}u * QUADS + ${q}u];
//#else
                let v = load_right(n + ${t}u, last, tile.col, ${q}u, last_quad);
//#end
//#end
//#for a in DOWN
                acc[${a}u * QUADS + ${q}u] = fma(vec4(left[${a}]), v, acc[${a}u * QUADS + ${q}u]);
//#end
            }
//#end
        }
//#end
    }
    let rows = params.out;
    let above = params.first_row + slice * params.out;
//#for a in DOWN
    let row${a} = row + ${a}u;
//#end
//#for q in QUADS
    {
        var factor = vec4(params.scale);
//#if NORM
        factor *= load_gain(0u, min(tile.col + ${q}u * 4u, last_quad), params.cols);
//#end
//#for a in DOWN
        acc[${a}u * QUADS + ${q}u] *= factor;
//#end
    }
//#end
//#include tile_store OUT=dw STRIDE=params.cols FIRST=above*params.cols ADD=ADD FROM=dw
}
