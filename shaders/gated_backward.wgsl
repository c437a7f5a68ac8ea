// gated_backward: the gradient of a gated feed-forward block's output product and gate: dh = dy w (+ g a) (+ others),
// dgate = dh · up · activation'(gate),  dup = dh · activation(gate).
//   dy (N, O)  w (O', F)  g (N, R)  a (R, F)  others (N, F): dh of the other rows of w  gates (N, 2 F): gate, up
//   ->   dgates (N, 2 F)  =
// inner: the number of columns of dy that are used here, with the rows of w from first_row on
// cols: F; stride: the total number of columns of dy; first_col: the first of them that is used here
//#include activation

fn rows() -> u32 {
    return extent(params.rows);
}

fn cols() -> u32 {
    return params.cols;
}

fn inner(term: u32) -> u32 {
//#if LORA
    return select(params.inner, params.rank, term == 1u);
//#else
    return params.inner;
//#end
}

fn left(term: u32, row: u32, k: u32) -> vec4<f32> {
//#if LORA
    if (term == 1u) {
        return load_g(row * params.rank, k, params.rank);
    }
//#end
    return load_dy(row * params.stride + params.first_col, k, params.inner);
}

fn right(term: u32, col: u32, k: u32) -> vec4<f32> {
//#if LORA
    if (term == 1u) {
        return load_a(k * params.cols, col, params.cols);
    }
//#end
    return load_w((params.first_row + k) * params.cols, col, params.cols);
}

fn finish(row: u32, col: u32, sums: vec4<f32>) {
    let at = row * 2u * params.cols + col;
    let count = min(4u, params.cols - col);
    var dh = sums;
//#if OTHERS
    dh += load_others(row * params.cols, col, params.cols);
//#end
    let gate = load_gates(at, 0u, count);
    let up = load_gates(at + params.cols, 0u, count);
    store_dgates(at, dh * up * activation_slope(gate), count);
    store_dgates(at + params.cols, dh * activate(gate), count);
}

//#include PRODUCT
