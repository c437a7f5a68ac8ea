// sample_combine: the token of each row, from the best of its parts, one row per invocation.
//   best (S, PARTS)  places (S, PARTS) of sample_best   ->   ids (S)  =
// The lowest id among equals.

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let row = group * 64u + lane;
    if (group >= step.end || row >= extent(params.rows)) {
        return;
    }
    let at = row * params.parts;
    var value = best[at];
    var place = places[at];
    for (var i = 1u; i < params.parts; i++) {
        if (best[at + i] > value) {
            value = best[at + i];
            place = places[at + i];
        }
    }
    ids[row] = place;
}
