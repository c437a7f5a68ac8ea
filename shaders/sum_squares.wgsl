// sum_squares: Σ x² of a workgroup's `share` elements, for global_norm.
//   x (M)   ->   partials from `first` on (ceil(M / share))  =
struct Params { len: u32, share: u32, first: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;
//#include step
//#include workgroup_sum

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let first = group * params.share;
    let last = min(first + params.share, params.len);
    var sum = 0.0;
    for (var m = first + lane; m < last; m += 64u) {
        sum += x[m] * x[m];
    }
    sum = workgroup_sum(lane, sum);
    if (group < step.end && lane == 0u) {
        partials[params.first + group] = sum;
    }
}
