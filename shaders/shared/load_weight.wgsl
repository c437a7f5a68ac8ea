// As `load`, of a matrix whose elements are of FORMAT (0 f32, 1 f16, 2 bf16): array<Weight>. Of 16 bits there are two to
// a word, the first in its low half, and a row is a whole number of vectors.
// With HALF they are f16 (FORMAT 1) and stay so: see product_half.
//#if HALF
//#if SUBGROUP
// Words, which a subgroup can hand round where it cannot hand round f16.
alias Weight = vec2<u32>;

fn load_${NAME}(at: u32, k: u32, len: u32) -> vec2<u32> {
    return ${NAME}[(at + k) >> 2u];
}
//#else
alias Weight = vec4<f16>;

fn load_${NAME}(at: u32, k: u32, len: u32) -> vec4<f16> {
    return ${NAME}[(at + k) >> 2u];
}
//#end
//#else
//#if FORMAT
alias Weight = vec2<u32>;
//#include widen

fn load_${NAME}(at: u32, k: u32, len: u32) -> vec4<f32> {
    let words = ${NAME}[(at + k) >> 2u];
    return vec4(widen(words.x), widen(words.y));
}
//#else
alias Weight = Element;
//#include load NAME=${NAME}
//#end
//#end
