// gated_forward: y = activation(gate) · up (Shazeer 2020, arXiv 2002.05202), (gate, up) = x Wᵀ (+ bias) (+ lora). With
// NORM, x stands for its rows divided by their root mean square, times norm_weight.
//   x (N, C)  w (…, C)  bias (2 F)  lora (N, 2 F)   ->   y (N, F)  =   gates (N, 2 F)  =  gate, up   inverse_rms (N)  =
// SAVE_FOR_BACKWARD: gates and inverse_rms are written.
// cols: the number of columns of y that are computed here; stride: F; first_col: the first of them
// gate_row, up_row: the first row of w for the gate and for the other factor
//#include activation

fn rows() -> u32 {
    return extent(params.rows);
}

// Index of a pair of gate and other factor.
fn cols() -> u32 {
    return params.cols;
}

fn inner(term: u32) -> u32 {
    return params.inner;
}

fn left(term: u32, row: u32, k: u32) -> vec4<f32> {
    return load_x(row * params.inner, k, params.inner);
}

fn right(term: u32, col: u32, k: u32) -> vec4<f32> {
    let row = select(params.gate_row + col, params.up_row + col - params.cols, col >= params.cols);
    return load_w(row * params.inner, k, params.inner);
}

//#if NORM
fn norm_weight_at(k: u32) -> vec4<f32> {
    return load_norm_weight(0u, k, params.inner);
}

fn save_inverse_rms(row: u32, inverse: f32) {
//#if SAVE_FOR_BACKWARD
    inverse_rms[row] = inverse;
//#end
}
//#end

fn finish_pair(row: u32, pair: u32, first: vec4<f32>, second: vec4<f32>) {
    let col = params.first_col + pair;
    let count = min(4u, params.cols - pair);
    let at = row * 2u * params.stride + col;
    var gate = first;
    var up = second;
//#if BIAS
    gate += load_bias(0u, col, params.stride);
    up += load_bias(params.stride, col, params.stride);
//#end
//#if LORA
    gate += load_lora(at, 0u, count);
    up += load_lora(at + params.stride, 0u, count);
//#end
//#if SAVE_FOR_BACKWARD
    store_gates(at, gate, count);
    store_gates(at + params.stride, up, count);
//#end
    store_y(row * params.stride + col, activate(gate) * up, count);
}

//#include PRODUCT
