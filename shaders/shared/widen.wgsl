// The two numbers of 16 bits in a word, the first in its low half, as f32. FORMAT: 1 f16, 2 bf16.
fn widen(word: u32) -> vec2<f32> {
    if (FORMAT == 2u) {
        return bitcast<vec2<f32>>(vec2(word << 16u, word & 0xffff0000u));
    }
    return unpack2x16float(word);
}
