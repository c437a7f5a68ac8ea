// The sum of v over the 64 lanes of a workgroup, the same in every lane. Two stages of 8 need two barriers, even for
// consecutive calls: each array is read before a barrier that its next writer must pass.
var<workgroup> lane_sums: array<f32, 64>;
var<workgroup> part_sums: array<f32, 8>;

fn workgroup_sum(lane: u32, v: f32) -> f32 {
    lane_sums[lane] = v;
    workgroupBarrier();
    if (lane < 8u) {
        var part = 0.0;
        for (var i = 0u; i < 8u; i++) {
            part += lane_sums[lane * 8u + i];
        }
        part_sums[lane] = part;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < 8u; i++) {
        sum += part_sums[i];
    }
    return sum;
}
