// Writes the first `count` of four elements from `at` on.
fn store_${NAME}(at: u32, v: vec4<f32>, count: u32) {
//#if ALIGNED
    ${NAME}[at >> 2u] = v;
//#else
    for (var j = 0u; j < count; j++) {
        ${NAME}[at + j] = v[j];
    }
//#end
}
