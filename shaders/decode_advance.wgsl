// decode_advance: advances each slot by its sampled token, one slot per invocation.
//   sampled (S)  eos (E)   ->   tokens, positions (S), spans (S), slots (S), history (S, LEN)  =
// slots contain (active, generated so far, limit, 0). A slot that reaches an end-of-sequence token or its limit
// becomes inactive: it attends to no keys and writes no cache rows from then on.

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let s = group * 64u + lane;
    if (group >= step.end || s >= extent(params.slots)) {
        return;
    }
    var slot = slots[s];
    if (slot.x == 0u) {
        return;
    }
    let token = sampled[s];
    history[s * params.len + slot.y] = token;
    slot.y += 1u;
    var done = slot.y >= slot.z;
    for (var i = 0u; i < params.eos; i++) {
        done = done || token == eos[i];
    }
    if (done) {
        slot.x = 0u;
        spans[s] = vec4(0u);
    } else {
        tokens[s] = token;
        positions[s] += 1u;
        spans[s].w += 1u;
    }
    slots[s] = slot;
}
