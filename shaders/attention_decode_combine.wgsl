// attention_decode_combine: attention of single queries from the parts of attention_decode_split, one vector per lane.
//   spans (N, 4)  part_stats (N, HEADS, splits) pairs: (largest, total)  part_sums (N, HEADS, splits, DIM)
//   ->   out (N, HEADS DIM)  =
// out = Σ exp(largest_p - top) sum_p / Σ exp(largest_p - top) total_p over the parts p that have keys; without keys
// zeros.
//#include attention

// The number of keys in each split of a query's keys; the last split may have fewer, and splits after it none.
fn keys_per_split(keys: u32) -> u32 {
    return max((keys + params.splits - 1u) / params.splits, params.least_keys);
}


@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let across = (HEADS * WIDTH + 63u) / 64u;
    let n = group / across;
    let vector = group % across * 64u + lane;
    if (group >= step.end || n >= extent(params.rows) || vector >= HEADS * WIDTH) {
        return;
    }
    let i = n * HEADS * WIDTH + vector;
    let span = seen_keys(spans[n]);
    let keys = key_count(span);
    let share = keys_per_split(keys);
    let first = i / WIDTH * params.splits;
    let end = first + (keys + share - 1u) / share;
    var top = NOTHING;
    for (var part = first; part < end; part++) {
        top = max(top, part_stats[part].x);
    }
    var sum = vec4<f32>();
    var total = 0.0;
    for (var part = first; part < end; part++) {
        let stat = part_stats[part];
        let weight = exp(stat.x - top);
        sum += weight * part_sums[part * WIDTH + i % WIDTH];
        total += weight * stat.y;
    }
    // The largest score has weight 1, so the total over any keys is at least 1.
    out[i] = sum / max(total, 1.0);
}
