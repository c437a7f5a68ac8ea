// What the attention kernels share. A head's DIM elements are WIDTH vectors; GROUP query heads read one kv head.
const WIDTH = DIM / 4u;
const GROUP = HEADS / KV_HEADS;

// The keys that a query sees, of both its ranges, numbered through from 0.
fn key_count(span: vec4<u32>) -> u32 {
    return span.y - span.x + span.w - span.z;
}

fn key_row(span: vec4<u32>, i: u32) -> u32 {
    let prefix = span.y - span.x;
    return select(span.z + i - prefix, span.x + i, i < prefix);
}
