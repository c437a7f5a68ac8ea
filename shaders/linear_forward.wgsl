// linear_forward: y = scale · x Wᵀ (+ lora_scale · h Bᵀ) (+ bias) (+ residual). With NORM, x stands for its rows
// divided by their root mean square, times norm_weight.
//   x (N, I)  w (O', I)  h (N, R)  b (O, R)  bias (O)  residual (N, O)   ->   y (N, O)  = or += (ADD)
// cols: the number of columns of y that are computed here, with the rows of w from first_row on
// stride: the total number of columns of y; first_col: the first of them that is computed here
// b_row: the row of b for that column
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
        return params.lora_scale * load_h(row * params.rank, k, params.rank);
    }
//#end
    return params.scale * load_x(row * params.inner, k, params.inner);
}

fn right(term: u32, col: u32, k: u32) -> vec4<f32> {
//#if LORA
    if (term == 1u) {
        return load_b((params.b_row + col) * params.rank, k, params.rank);
    }
//#end
    return load_w((params.first_row + col) * params.inner, k, params.inner);
}

//#if NORM
fn norm_weight_at(k: u32) -> vec4<f32> {
    return load_norm_weight(0u, k, params.inner);
}

fn save_inverse_rms(row: u32, inverse: f32) {}
//#end

fn finish(row: u32, col: u32, sums: vec4<f32>) {
    let at = row * params.stride + params.first_col + col;
    let count = min(4u, params.cols - col);
    var y = sums;
//#if BIAS
    y += load_bias(params.first_col, col, params.cols);
//#end
//#if RESIDUAL
    y += load_residual(at, 0u, count);
//#end
//#if ADD
    y += load_y(at, 0u, count);
//#end
    store_y(at, y, count);
}

//#include PRODUCT
