// gated_backward: through the output product of a gated feed-forward block and its gate: dh = dy w (+ g a) (+ addend),
// dgate = dh up s (1 + gate (1 - s)),  dup = dh gate s,  s = σ(gate).
//   dy (N, O)  w (O', F)  g (N, R)  a (R, F)  addend (N, F)  gates (N, 2 F): gate, up   ->   dgates (N, 2 F)  =
struct Params {
    rows: u32,
    inner: u32,     // columns of dy used here: rows of w from first_row on
    cols: u32,      // F
    stride: u32,    // columns of dy in all
    first_col: u32, // the first of them in dy
    first_row: u32,
    rank: u32,
}
//#include element
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<Element>;
@group(0) @binding(2) var<storage, read> w: array<Element>;
//#if LOW_RANK
@group(0) @binding(3) var<storage, read> g: array<Element>;
@group(0) @binding(4) var<storage, read> a: array<Element>;
//#end
//#if ADDEND
@group(0) @binding(3 + 2 * LOW_RANK) var<storage, read> addend: array<Element>;
//#end
@group(0) @binding(3 + 2 * LOW_RANK + ADDEND) var<storage, read> gates: array<Element>;
@group(0) @binding(4 + 2 * LOW_RANK + ADDEND) var<storage, read_write> dgates: array<Element>;
//#include step
//#include tile
//#include load NAME=dy
//#include load NAME=w
//#if LOW_RANK
//#include load NAME=g
//#include load NAME=a
//#end
//#if ADDEND
//#include load NAME=addend
//#end
//#include load NAME=gates
//#include store NAME=dgates
//#include sigmoid

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
//#include product_cols LEFT=dy LEFT_STRIDE=params.stride LEFT_FIRST=params.first_col RIGHT=w RIGHT_FIRST=params.first_row INNER=params.inner SCALE=1.0
//#if LOW_RANK
//#include product_cols LEFT=g LEFT_STRIDE=params.rank LEFT_FIRST=0u RIGHT=a RIGHT_FIRST=0u INNER=params.rank SCALE=1.0
//#end
//#for a in DOWN
    if (row${a} < rows) {
//#for q in QUADS
        if (tile.col + ${q}u * 4u < params.cols) {
            let col = tile.col + ${q}u * 4u;
            let count = min(4u, params.cols - col);
            let at = row${a} * 2u * params.cols + col;
            var dh = acc[${a}u * QUADS + ${q}u];
//#if ADDEND
            dh += load_addend(row${a} * params.cols + col, 0u, count);
//#end
            let gate = load_gates(at, 0u, count);
            let up = load_gates(at + params.cols, 0u, count);
            let s = vec4(sigmoid(gate.x), sigmoid(gate.y), sigmoid(gate.z), sigmoid(gate.w));
            store_dgates(at, dh * up * s * (1.0 + gate * (1.0 - s)), count);
            store_dgates(at + params.cols, dh * gate * s, count);
        }
//#end
    }
//#end
}
