// multiply_add_ceiling: measures the peak rate of multiply-adds: 8 independent chains of ROUNDS steps per invocation,
// on vectors of four, without memory accesses in between.
//   x (N)   ->   y (N)  = the sum of the final values of the chains; a step of chain j is c <- 0.75 c + j / 8, from c =
//   x

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let i = group * 64u + lane;
    if (group >= step.end || i >= params.len) {
        return;
    }
    var c0 = vec4(x[i]);
    var c1 = c0;
    var c2 = c0;
    var c3 = c0;
    var c4 = c0;
    var c5 = c0;
    var c6 = c0;
    var c7 = c0;
    let f = vec4(0.75);
    for (var round = 0u; round < ROUNDS; round++) {
        c0 = fma(c0, f, vec4(0.0));
        c1 = fma(c1, f, vec4(0.125));
        c2 = fma(c2, f, vec4(0.25));
        c3 = fma(c3, f, vec4(0.375));
        c4 = fma(c4, f, vec4(0.5));
        c5 = fma(c5, f, vec4(0.625));
        c6 = fma(c6, f, vec4(0.75));
        c7 = fma(c7, f, vec4(0.875));
    }
    let sum = (c0 + c1) + (c2 + c3) + (c4 + c5) + (c6 + c7);
    y[i] = 0.25 * (sum.x + sum.y + sum.z + sum.w);
}
