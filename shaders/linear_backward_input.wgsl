// linear_backward_input: dx = scale · dy W (+ g A).
//   dy (N, O)  w (O', I)  g (N, R)  a (R, I)   ->   dx (N, I)  = or += (ADD)
// inner: the number of columns of dy that are used here, with the rows of w from first_row on
// stride: the total number of columns of dy; first_col: the first of them that is used here
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
    return params.scale * load_dy(row * params.stride + params.first_col, k, params.inner);
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
    let at = row * params.cols + col;
    let count = min(4u, params.cols - col);
//#if ADD
    store_dx(at, sums + load_dx(at, 0u, count), count);
//#else
    store_dx(at, sums, count);
//#end
}

//#include PRODUCT
