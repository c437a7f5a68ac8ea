// qkv_forward: queries, keys and values, with queries and keys rotated by the angles of their positions (Su et al.
// 2021, arXiv 2104.09864): qkv = x Wᵀ (+ bias) (+ lora). With NORM, x stands for its rows divided by their root mean
// square, times norm_weight.
//   x (N, C)  w (O', C)  spans (N, 4)  table (positions, DIM): cosines, then sines  bias (O)  lora (N, O)
//   ->   qkv (N, O)  =   inverse_rms (N)  = (SAVE_FOR_BACKWARD)
//   or, if CACHE,   qkv (N, HEADS DIM): queries only  =   kv (M, 2 KV_HEADS DIM)  = at the row of the query's last key
// O = (HEADS + 2 KV_HEADS) DIM: all queries, all keys, all values. A row's position is the number of keys before its
// own, which is the last; a row without keys writes no cache row.
// pairs: half the number of columns that are computed here (whole heads), with the rows of w from first_row on;
// first_col: the first of them among all O
// before: number of keys that precede those of every span
const OUTPUTS = (HEADS + 2u * KV_HEADS) * DIM;

fn rows() -> u32 {
    return extent(params.rows);
}

// Pairs of columns half a head apart.
fn cols() -> u32 {
    return params.pairs;
}

fn inner(term: u32) -> u32 {
    return params.inner;
}

fn left(term: u32, row: u32, k: u32) -> vec4<f32> {
    return load_x(row * params.inner, k, params.inner);
}

// The column of a pair's first element, among those computed here.
fn column_of(pair: u32) -> u32 {
    return pair / (DIM / 2u) * DIM + pair % (DIM / 2u);
}

fn right(term: u32, col: u32, k: u32) -> vec4<f32> {
    let row = select(column_of(col), column_of(col - params.pairs) + DIM / 2u, col >= params.pairs);
    return load_w((params.first_row + row) * params.inner, k, params.inner);
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

fn store(row: u32, span: vec4<u32>, col: u32, value: vec4<f32>) {
//#if CACHE
    if (col < HEADS * DIM) {
        qkv[(row * HEADS * DIM + col) / 4u] = value;
    } else if (key_count(span) > 0u) {
        kv[((span.w - 1u) * 2u * KV_HEADS * DIM + col - HEADS * DIM) / 4u] = value;
    }
//#else
    qkv[(row * OUTPUTS + col) / 4u] = value;
//#end
}

fn finish_pair(row: u32, pair: u32, first: vec4<f32>, second: vec4<f32>) {
    let span = spans[row];
    let col = params.first_col + column_of(pair);
    var low = first;
    var high = second;
//#if BIAS
    low += bias[col / 4u];
    high += bias[(col + DIM / 2u) / 4u];
//#end
//#if LORA
    low += lora[(row * OUTPUTS + col) / 4u];
    high += lora[(row * OUTPUTS + col + DIM / 2u) / 4u];
//#end
    if (col < (HEADS + KV_HEADS) * DIM) {
        let angles = (extent(params.before) + max(key_count(span), 1u) - 1u) * (DIM / 4u);
        let cosine = table[angles + col % DIM / 4u];
        let sine = table[angles + col % DIM / 4u + DIM / 8u];
        let rotated = low * cosine - high * sine;
        high = high * cosine + low * sine;
        low = rotated;
    }
    store(row, span, col, low);
    store(row, span, col + DIM / 2u, high);
}

//#include spans
//#include PRODUCT
