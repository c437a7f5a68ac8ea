// reduce_slices: TASKS times y = or += the sum of the slices of x, in order, four elements per invocation.
//   x (slices, M)   ->   y from element `first` on (M)  = or, if `add` is 1, +=
// There is one slice per `share` of `rows`.

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    if (group >= step.end) {
        return;
    }
    // The workgroups of the tasks are consecutive.
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
        // A negative value wraps around to a number beyond any length.
        first -= (params.len${t} + 255u) / 256u * 256u;
    }
//#end
}
