// Counter-based random numbers, identical to reference::random bit for bit.
// The hash is pcg4d: Jarzynski and Olano 2020, "Hash Functions for GPU Rendering", JCGT 9(3).
fn pcg4d_mix(words: vec4<u32>) -> vec4<u32> {
    var v = words;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

fn pcg4d(counters: vec4<u32>) -> vec4<u32> {
    let v = pcg4d_mix(counters * 1664525u + 1013904223u);
    return pcg4d_mix(v ^ (v >> vec4(16u)));
}

// A uniform number in (0, 1), an odd multiple of 2^-24.
fn uniform_number(bits: u32) -> f32 {
    return (f32(bits >> 9u) + 0.5) / 8388608.0;
}

// -ln(-ln u) of such a u: a number with the standard Gumbel distribution.
fn gumbel(u: f32) -> f32 {
    let v = 1.0 - u; // exact
    if (v >= 0.25) {
        return -log(-log(u));
    }
    // log alone can be off by 2^-21 near 1; uses -ln u = 2 artanh w instead, whose next term is below 2^-30.
    let w = v / (2.0 - v);
    let q = w * w;
    return -log(2.0 * w * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q / 9.0)))));
}
