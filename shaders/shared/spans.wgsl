// The keys that a query attends to are the rows x to y and z to w of its span, numbered consecutively from 0.
fn key_count(span: vec4<u32>) -> u32 {
    return span.y - span.x + span.w - span.z;
}

// The row of key i of those that a query attends to.
fn key_row(span: vec4<u32>, i: u32) -> u32 {
    let prefix = span.y - span.x;
    return select(span.z + i - prefix, span.x + i, i < prefix);
}
