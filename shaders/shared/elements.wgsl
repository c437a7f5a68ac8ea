// The part of (rows, cols) that a workgroup of an elementwise kernel processes, in vectors of four of a row's columns,
// of which there are `across`: several whole rows, or 256 vectors of one.
struct Quads { first: u32, last: u32, across: u32 }

fn quads_of(group: u32, rows: u32, cols: u32) -> Quads {
    let across = (cols + 3u) / 4u;
    if (across >= 256u) {
        let pieces = (across + 255u) / 256u;
        let row = group / pieces * across;
        let first = row + group % pieces * 256u;
        return Quads(first, min(first + 256u, row + across), across);
    }
    let down = min(256u / across, 64u);
    let first = group * down * across;
    return Quads(first, min(first + down * across, rows * across), across);
}
