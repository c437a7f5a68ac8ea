// The keys that a query sees are the rows x to y and z to w of its span, numbered through from 0.
fn key_count(span: vec4<u32>) -> u32 {
    return span.y - span.x + span.w - span.z;
}
