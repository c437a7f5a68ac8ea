// sample_threshold: finds the next eight bits of the highest order at which the logits above or equal weigh `goal` or
// more, one row per workgroup.
//   histograms (S, PARTS, 2, 256) of sample_histogram, as vectors of four   ->   state (S, 4)  = (FIRST) or updated
// state: the bits of the order so far, the weight of the orders above (lower word, upper word), goal as a float
// goal: a number of logits, or (BY_MASS) a fraction of the total weight, which the first launch converts to a weight

var<workgroup> sums: array<vec2<u32>, 64>;

// Arithmetic of two-word integers.
fn add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2(low, a.y + b.y + select(0u, 1u, low < a.x));
}

// The weight as a float, as a number or (BY_MASS) as a mass; monotonic.
fn number(weight: vec2<u32>) -> f32 {
    return select(f32(weight.x), f32(weight.y) / 4096.0 + f32(weight.x) / 4096.0 / 4294967296.0, BY_MASS);
}

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let row = min(group, extent(params.rows) - 1u);
    // The four digits of this lane.
    var digits: array<vec2<u32>, 4>;
    for (var part = 0u; part < params.parts; part++) {
        let at = (row * params.parts + part) * 128u + lane;
        let lower = histograms[at];
        let upper = histograms[at + 64u];
        for (var j = 0u; j < 4u; j++) {
            digits[j] = add(digits[j], vec2(lower[j], upper[j]));
        }
    }
    sums[lane] = add(add(digits[0], digits[1]), add(digits[2], digits[3]));
    workgroupBarrier();
    var before = vec4<u32>();
//#if FIRST
//#else
    before = state[row];
//#end
    var above = before.yz;
    var total = vec2<u32>();
    for (var i = 0u; i < 64u; i++) {
        total = add(total, sums[i]);
        if (i > lane) {
            above = add(above, sums[i]);
        }
    }
    var goal = bitcast<f32>(before.w);
//#if FIRST
    // Above 0, so that an empty set does not weigh enough.
    goal = select(params.goal, max(params.goal * number(total), 1e-12), BY_MASS);
//#end
    // The lane with the digit writes it; if no digit weighs enough, the last is taken, since logits may be NaN. It
    // writes after all lanes have read the old state.
    storageBarrier();
    if (group >= step.end || number(above) >= goal) {
        return;
    }
    // Unrolled, otherwise the digits are in NVIDIA's local memory.
//#for j in 4
    {
        let with_it = add(above, digits[3u - ${j}u]);
        let digit = lane * 4u + 3u - ${j}u;
        if (number(with_it) >= goal || digit == 0u) {
            state[row] = vec4(before.x | (digit << params.shift), above, bitcast<u32>(goal));
            return;
        }
        above = with_it;
    }
//#end
}
