// reduce_slices: TASKS times y = or += the sum of the slices of x, in order, four elements an invocation.
//   x (slices, M)   ->   y from element `first` on (M)  = or, where `add` is 1, +=
// There is a slice for every `share` of `rows`.
struct Params {
//#for t in TASKS
    rows${t}: u32,
    share${t}: u32,
    len${t}: u32,
    first${t}: u32,
    add${t}: u32,
//#end
}
@group(0) @binding(0) var<uniform> params: Params;
//#for t in TASKS
@group(0) @binding(1 + 2 * ${t}) var<storage, read> x${t}: array<f32>;
@group(0) @binding(2 + 2 * ${t}) var<storage, read_write> y${t}: array<f32>;
//#end
//#include step

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    if (group >= step.end) {
        return;
    }
    // The tasks' workgroups follow each other.
    var first = group * 256u;
//#for t in TASKS
    {
        let slices = (extent(params.rows${t}) + params.share${t} - 1u) / params.share${t};
        for (var i = 0u; i < 4u; i++) {
            let m = first + i * 64u + lane;
            if (m < params.len${t}) {
                var sum = 0.0;
                for (var s = 0u; s < slices; s++) {
                    sum += x${t}[s * params.len${t} + m];
                }
                if (params.add${t} == 1u) {
                    sum += y${t}[params.first${t} + m];
                }
                y${t}[params.first${t} + m] = sum;
            }
        }
        // Below 0 wraps to beyond any length.
        first -= (params.len${t} + 255u) / 256u * 256u;
    }
//#end
}
