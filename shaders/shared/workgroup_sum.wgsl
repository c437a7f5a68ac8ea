// The sum over the 64 lanes of a workgroup, in their order. Every lane must call it.
var<workgroup> lane_values: array<f32, 64>;

fn workgroup_sum(lane: u32, x: f32) -> f32 {
    lane_values[lane] = x;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < 64u; i++) {
        sum += lane_values[i];
    }
    workgroupBarrier();
    return sum;
}
