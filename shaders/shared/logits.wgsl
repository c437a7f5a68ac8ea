// The logits from the products x of the output head: scale x, then soft_cap · tanh(scale x / soft_cap). The argument is
// limited to ±10, where tanh is ±1 in f32; larger ones overflow in some drivers.
fn logits_of(x: vec4<f32>) -> vec4<f32> {
    var z = x;
//#if SCALE
    z *= params.scale;
//#end
//#if SOFT_CAP
    z = params.soft_cap * tanh(clamp(z / params.soft_cap, vec4(-10.0), vec4(10.0)));
//#end
    return z;
}

// The derivatives of `logits_of`, given its results.
fn logit_slopes(z: vec4<f32>) -> vec4<f32> {
    var slopes = vec4(1.0);
//#if SCALE
    slopes *= params.scale;
//#end
//#if SOFT_CAP
    slopes *= 1.0 - z * z / (params.soft_cap * params.soft_cap);
//#end
    return slopes;
}

// Which of the columns col to col + 3 exist.
fn columns_below(col: u32, cols: u32) -> vec4<bool> {
    return vec4(col, col + 1u, col + 2u, col + 3u) < vec4(cols);
}
