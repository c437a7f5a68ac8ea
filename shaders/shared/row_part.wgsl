// Rows of logits, each divided into `parts` parts of `share` logits, a multiple of 256; one part per workgroup.
//#include logits
struct RowPart { row: u32, first: u32, last: u32 }

fn part_of(group: u32) -> RowPart {
    let first = group % params.parts * params.share;
    let row = min(group / params.parts, extent(params.rows) - 1u);
    return RowPart(row, first, min(first + params.share, params.cols));
}

// Four of a row's logits; undefined beyond its end.
fn logits_at(row: u32, col: u32) -> vec4<f32> {
    return logits_of(load_logits(row * params.cols, col, params.cols));
}

// An integer with the same order as the float.
fn order(x: f32) -> u32 {
    let bits = select(bitcast<u32>(x), 0u, x == 0.0); // -0 is 0
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

//#if RELATIVE
// The largest of a row's parts.
fn largest_of(row: u32) -> f32 {
    var top = largest[row * params.parts];
    for (var i = 1u; i < params.parts; i++) {
        top = max(top, largest[row * params.parts + i]);
    }
    return top;
}
//#end
