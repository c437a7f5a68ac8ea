// What a workgroup of an elementwise kernel takes of (rows, cols): several whole rows, or 1024 columns of one.
struct Elements { first: u32, last: u32 }

fn elements_of(group: u32, rows: u32, cols: u32) -> Elements {
    if (cols >= 1024u) {
        let across = (cols + 1023u) / 1024u;
        let row = group / across * cols;
        let first = row + group % across * 1024u;
        return Elements(first, min(first + 1024u, row + cols));
    }
    let down = min(1024u / cols, 64u);
    let first = group * down * cols;
    return Elements(first, min(first + down * cols, rows * cols));
}
