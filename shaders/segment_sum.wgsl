// segment_sum: y[s] = Σ x[t] over offsets[s] <= t < offsets[s + 1], in order, an invocation a segment.
//   x (T)  offsets (S + 1)   ->   y (S)  =
struct Params { rows: u32, segments: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
//#include step

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let s = group * 64u + lane;
    if (group >= step.end || s >= extent(params.segments)) {
        return;
    }
    var sum = 0.0;
    let end = min(offsets[s + 1u], extent(params.rows));
    for (var t = offsets[s]; t < end; t++) {
        sum += x[t];
    }
    y[s] = sum;
}
