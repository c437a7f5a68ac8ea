// segment_sum_backward: dx[t] = dy[s] for offsets[s] <= t < offsets[s + 1], an invocation a segment.
//   dy (S)  offsets (S + 1)   ->   dx (T)  = or += (ADD)
struct Params { rows: u32, segments: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
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
    let end = min(offsets[s + 1u], extent(params.rows));
    for (var t = offsets[s]; t < end; t++) {
        var d = dy[s];
//#if ADD
        d += dx[t];
//#end
        dx[t] = d;
    }
}
