// gated_forward: the gated activation of the normalised rows (Shazeer 2020, arXiv 2002.05202):
// y = gate σ(gate) up, (gate, up) = (x inv gain) wᵀ (+ addend), inv = 1 / sqrt(mean(x²) + eps).
//   x (N, C)  w (…, C)  gain (C)  addend (N, 2 F)   ->   y (N, F)  =   gates (N, 2 F)  =  gate, up   inv (N)  =
// with KEEP what the backward pass needs: gates and inv.
struct Params {
    rows: u32,
    inner: u32,
    cols: u32,     // columns of y computed here
    stride: u32,   // F
    first: u32,    // the first of them
    gate_row: u32, // the first of the rows of w for the gate
    up_row: u32,   // and for the other input
    eps: f32,
}
//#include element
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> w: array<Weight>;
@group(0) @binding(3) var<storage, read> gain: array<Element>;
//#if ADDEND
@group(0) @binding(4) var<storage, read> addend: array<Element>;
//#end
@group(0) @binding(4 + ADDEND) var<storage, read_write> y: array<Element>;
//#if KEEP
@group(0) @binding(5 + ADDEND) var<storage, read_write> gates: array<Element>;
@group(0) @binding(6 + ADDEND) var<storage, read_write> inv: array<f32>;
//#end
//#include step
//#include tile
//#include load NAME=x
//#include load_weight NAME=w
//#include load NAME=gain
//#if ADDEND
//#include load NAME=addend
//#end
//#include store NAME=y
//#if KEEP
//#include store NAME=gates
//#end
//#include sigmoid

// A tile has half its columns in the gate, the same ones again in the other input.
fn w_row(tile_col: u32, c: u32) -> u32 {
    let first = select(params.gate_row, params.up_row, c >= COLS / 2u);
    return first + min(tile_col / 2u + c % (COLS / 2u), params.cols - 1u);
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
//#include tile_lane
    let group = group_index(id, count);
    let rows = extent(params.rows);
    let tile = tile_of(group, part, 2u * params.cols);
    if (group >= step.end || tile.row >= rows) {
        return;
    }
//#include tile_rows
//#include product_weight LEFT=x RIGHT=w ROW=w_row INNER=params.inner
//#include normalise
//#for a in DOWN
    if (row${a} < rows) {
//#for i in PAIRS
        if (tile.col / 2u + ${i}u * 4u < params.cols) {
            let col = tile.col / 2u + ${i}u * 4u;
            let count = min(4u, params.cols - col);
            var gate = acc[${a}u * QUADS + ${i}u];
            var up = acc[${a}u * QUADS + PAIRS + ${i}u];
            let at = row${a} * 2u * params.stride + params.first + col;
//#if ADDEND
            gate += load_addend(at, 0u, count);
            up += load_addend(at + params.stride, 0u, count);
//#end
//#if KEEP
            store_gates(at, gate, count);
            store_gates(at + params.stride, up, count);
//#end
            let opened = gate * vec4(sigmoid(gate.x), sigmoid(gate.y), sigmoid(gate.z), sigmoid(gate.w));
            store_y(row${a} * params.stride + params.first + col, opened * up, count);
        }
//#end
    }
//#end
}
