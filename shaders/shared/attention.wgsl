// Shared by the attention kernels: the layout of heads in rows, and the keys that a query attends to. A head's DIM
// elements are WIDTH vectors; SHARED query heads read one kv head. Strides and offsets are in vectors: a row's keys are
// at KEYS_AT, its values follow; in a buffer of their own, a row has nothing else.
//#include spans
const WIDTH = DIM / 4u;
const SHARED = HEADS / KV_HEADS;
const VALUES_AT = KEYS_AT + KV_HEADS * WIDTH;
const BEFORE_STRIDE = 2u * KV_HEADS * WIDTH;
const BEFORE_VALUES_AT = KV_HEADS * WIDTH;
// The score of a masked key, and the lower bound of the largest score before exp, so that a masked score gets weight 0.
const NOTHING = -1e30;
const LOWEST = -1e29;
// Larger than any key's row.
const NO_ROW = 0xffffffffu;

// A span without its first keys, outside the window.
fn last_keys(span: vec4<u32>, window: u32) -> vec4<u32> {
    let hidden = max(key_count(span), window) - window;
    let of_prefix = min(hidden, span.y - span.x);
    return vec4(span.x + of_prefix, span.y, span.z + hidden - of_prefix, span.w);
}

fn sees(span: vec4<u32>, row: u32) -> bool {
    return (row >= span.x && row < span.y) || (row >= span.z && row < span.w);
}

// The keys that a query attends to, in the rows themselves or in a cache.
fn seen_keys(span: vec4<u32>) -> vec4<u32> {
//#if WINDOW
    return last_keys(span, params.window);
//#else
    return span;
//#end
}

// Soft-capped scores: cap tanh(score / cap). The argument is limited to ±10, where tanh is ±1 in f32; larger ones
// overflow in some drivers.
fn capped(scores: vec4<f32>) -> vec4<f32> {
//#if SOFT_CAP
    return params.soft_cap * tanh(clamp(scores / params.soft_cap, vec4(-10.0), vec4(10.0)));
//#else
    return scores;
//#end
}

// The derivatives of `capped`, given its results.
fn capped_slope(scores: vec4<f32>) -> vec4<f32> {
//#if SOFT_CAP
    return 1.0 - scores * scores / (params.soft_cap * params.soft_cap);
//#else
    return vec4(1.0);
//#end
}
