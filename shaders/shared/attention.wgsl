// What the attention kernels share: where heads lie in rows, and which keys a query sees.
// A head's DIM elements are WIDTH vectors; SHARED query heads read one kv head. Strides and places are in vectors: a row's keys
// lie at KEYS_AT, its values after them; in a buffer of their own they are all that a row has.
//#include spans
const WIDTH = DIM / 4u;
const SHARED = HEADS / KV_HEADS;
const VALUES_AT = KEYS_AT + KV_HEADS * WIDTH;
const BEFORE_STRIDE = 2u * KV_HEADS * WIDTH;
const BEFORE_VALUES_AT = KV_HEADS * WIDTH;
// The score of a key that is not seen, and what any largest score is raised to before exp, so that such a score weighs 0.
const NOTHING = -1e30;
const LOWEST = -1e29;
// What no key's row reaches.
const NO_ROW = 0xffffffffu;

// A span without its first keys: a window's.
fn last_keys(span: vec4<u32>, window: u32) -> vec4<u32> {
    let hidden = max(key_count(span), window) - window;
    let of_prefix = min(hidden, span.y - span.x);
    return vec4(span.x + of_prefix, span.y, span.z + hidden - of_prefix, span.w);
}

fn sees(span: vec4<u32>, row: u32) -> bool {
    return (row >= span.x && row < span.y) || (row >= span.z && row < span.w);
}

// The keys that a query sees, of those that lie in the rows themselves or in a cache.
fn seen_keys(span: vec4<u32>) -> vec4<u32> {
//#if WINDOW
    return last_keys(span, params.window);
//#else
    return span;
//#end
}

// Scores as the softmax takes them: cap tanh(score / cap), within ±10 of which tanh is ±1 in f32; larger arguments overflow
// in some drivers.
fn capped(scores: vec4<f32>) -> vec4<f32> {
//#if SOFT_CAP
    return params.soft_cap * tanh(clamp(scores / params.soft_cap, vec4(-10.0), vec4(10.0)));
//#else
    return scores;
//#end
}

// The slopes of `capped` where it gives these.
fn capped_slope(scores: vec4<f32>) -> vec4<f32> {
//#if SOFT_CAP
    return 1.0 - scores * scores / (params.soft_cap * params.soft_cap);
//#else
    return vec4(1.0);
//#end
}
