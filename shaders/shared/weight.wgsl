// Elements of a frozen weight as f32. FORMAT: 0 f32, 1 f16, 2 bf16; of 16 bits there are two to a word, the first in
// its low half. By integers alone: unpack2x16float is an optional feature of some drivers.

// The elements of `FORMAT` in the low halves of four words.
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

// Four elements from two words.
fn weights(words: vec2<u32>) -> vec4<f32> {
    return widen(vec4(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u));
}

// Element `i` of a weight, of the word at `weight_word(i)`.
fn weight_word(i: u32) -> u32 {
    return select(i, i >> 1u, FORMAT > 0u);
}

fn weight(i: u32, word: u32) -> f32 {
    if (FORMAT == 0u) {
        return bitcast<f32>(word);
    }
    return widen(vec4((word >> (16u * (i & 1u))) & 0xffffu)).x;
}
