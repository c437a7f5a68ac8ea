// Four numbers of 16 bits, one in the low half of each word, as f32. FORMAT: 1 f16, 2 bf16. By integers alone:
// unpack2x16float is more than some drivers have.
fn widen(bits: vec4<u32>) -> vec4<f32> {
    if (FORMAT == 2u) {
        return bitcast<vec4<f32>>(bits << vec4(16u));
    }
    // An f16's exponent is biased by 15, an f32's by 127. Below the smallest normal number the leading 1 is missing:
    // it is put there and taken off again. The largest exponent is infinity's.
    let magnitude = (bits & vec4(0x7fffu)) << vec4(13u);
    let normal = magnitude + (112u << 23u);
    let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(normal + (1u << 23u)) - bitcast<f32>(113u << 23u));
    let wide = select(normal, small, magnitude < vec4(1u << 23u));
    let sign = (bits & vec4(0x8000u)) << vec4(16u);
    return bitcast<vec4<f32>>(sign | select(wide, magnitude | vec4(255u << 23u), magnitude >= vec4(31u << 23u)));
}
