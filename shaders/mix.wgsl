// mix: moves y towards x by a share, in place, lanes along the elements in fours.
//   x, y (M)   ->   y (M)  updated
// y = amount x + rest y,  rest = 1 - amount
// share: elements per workgroup, a multiple of 256

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    if (group >= step.end) {
        return;
    }
    let first = group * params.share;
    let last = min(first + params.share, params.len);
    for (var i = first + lane * 4u; i < last; i += 256u) {
        let mixed = params.amount * load_x(0u, i, params.len) + params.rest * load_y(0u, i, params.len);
        store_y(i, mixed, min(4u, params.len - i));
    }
}
