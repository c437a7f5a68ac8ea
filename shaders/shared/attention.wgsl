// What the attention kernels share. A head's DIM elements are WIDTH vectors; SHARED query heads read one kv head.
const WIDTH = DIM / 4u;
const SHARED = HEADS / KV_HEADS;
// In vectors: from row to row of queries, of keys and values, and where keys and values lie in their rows.
const Q_STRIDE = select(HEADS, HEADS + 2u * KV_HEADS, TOGETHER == 1u) * WIDTH;
const KV_STRIDE = select(2u * KV_HEADS, HEADS + 2u * KV_HEADS, TOGETHER == 1u) * WIDTH;
const KEYS_AT = select(0u, HEADS, TOGETHER == 1u) * WIDTH;
const VALUES_AT = KEYS_AT + KV_HEADS * WIDTH;
// As KV_STRIDE, of keys and values in a buffer of their own.
const BEFORE_STRIDE = 2u * KV_HEADS * WIDTH;
const NOTHING = -1e30;
// What no key's row reaches.
const NO_KEY = 0xffffffffu;

// Row of key i of those that a query sees.
fn key_row(span: vec4<u32>, i: u32) -> u32 {
    let prefix = span.y - span.x;
    return select(span.z + i - prefix, span.x + i, i < prefix);
}
