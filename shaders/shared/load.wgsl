// Elements k to k + 3 of the row that starts at `at`; those from `len` on are 0.
fn load_${NAME}(at: u32, k: u32, len: u32) -> vec4<f32> {
//#if ALIGNED
    return ${NAME}[(at + k) >> 2u];
//#else
    let last = at + len - 1u;
    let v = vec4(
        ${NAME}[at + k],
        ${NAME}[min(at + k + 1u, last)],
        ${NAME}[min(at + k + 2u, last)],
        ${NAME}[min(at + k + 3u, last)],
    );
    return select(vec4<f32>(), v, vec4(k, k + 1u, k + 2u, k + 3u) < vec4(len));
//#end
}
