// linear_backward_weight: dw = scale · dyᵀ x over a slice of the rows. With NORMALISED, x stands for its rows times
// inverse_rms, times norm_weight.
//   dy (N, O)  x (N, I)  inverse_rms (N)  norm_weight (I)   ->   dw (slices, O', I)  = , or dw (O', I)  += (ADD)
// The slices are summed by reduce_slices, in order.
// out: the number of columns of dy that are used here, for the rows of dw from first_row on
// stride: the total number of columns of dy; first_col: the first of them that is used here
fn rows() -> u32 {
    return params.out;
}

fn cols() -> u32 {
    return params.cols;
}

fn inner(term: u32) -> u32 {
    return extent(params.rows);
}

fn slices() -> u32 {
    return params.slices;
}

fn left(term: u32, row: u32, k: u32) -> vec4<f32> {
    return load_dy(k * params.stride + params.first_col, row, params.out);
}

fn right(term: u32, col: u32, k: u32) -> vec4<f32> {
    let x = load_x(k * params.cols, col, params.cols);
//#if NORMALISED
    return inverse_rms[k] * x;
//#else
    return x;
//#end
}

fn finish_slice(slice: u32, row: u32, col: u32, sums: vec4<f32>) {
    let at = (params.first_row + slice * params.out + row) * params.cols + col;
    let count = min(4u, params.cols - col);
    var dw = params.scale * sums;
//#if NORMALISED
    dw *= load_norm_weight(0u, col, params.cols);
//#end
//#if ADD
    dw += load_dw(at, 0u, count);
//#end
    store_dw(at, dw, count);
}

//#include PRODUCT
