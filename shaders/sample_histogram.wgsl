// sample_histogram: the weight of the logits x of a part of a row, by the next eight bits of their order; one part per
// workgroup.
//   logits (S, V)  unless FIRST: state (S, 4) of sample_threshold  RELATIVE: largest (S, PARTS) of sample_best
//   FLOOR: floors (S, 4), the state of another filter   ->   histograms (S, PARTS, 2, 256)  =
// Counts the x whose order equals the first word of `state` in the bits of `mask`, and (FLOOR) is at least the first
// word of `floors`. Each has weight 1, or (RELATIVE) exp((x - max x) / temperature) in units of 2^-44: the lower words
// of all weights come first, then the upper ones. Integers, so that their sum does not depend on the order of adding.
//#include row_part

var<workgroup> lower: array<atomic<u32>, 256>;
var<workgroup> upper: array<atomic<u32>, 256>;

fn weigh(digit: u32, weight: vec2<u32>) {
    let old = atomicAdd(&lower[digit], weight.x);
    let more = weight.y + select(0u, 1u, old + weight.x < old);
    if (more > 0u) {
        atomicAdd(&upper[digit], more);
    }
}

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let part = part_of(group);
    for (var i = lane; i < 256u; i += 64u) {
        atomicStore(&lower[i], 0u);
        atomicStore(&upper[i], 0u);
    }
    workgroupBarrier();
    var low = 0u;
//#if FLOOR
    low = floors[part.row].x;
//#end
    var begin = 0u;
//#if FIRST
//#else
    begin = state[part.row].x;
//#end
//#if RELATIVE
    let top = largest_of(part.row);
//#end
    for (var i = part.first + lane * 4u; i < part.last; i += 256u) {
        let x = logits_at(part.row, i);
//#if RELATIVE
        let mass = exp((x - top) / params.temperature) * 4096.0;
        let whole = floor(mass);
        let weights_lower = vec4<u32>((mass - whole) * 4294967296.0);
        let weights_upper = vec4<u32>(whole);
//#end
        for (var j = 0u; j < min(4u, part.last - i); j++) {
            let key = order(x[j]);
            if (((key ^ begin) & params.mask) == 0u && key >= low) {
                let digit = (key >> params.shift) & 255u;
//#if RELATIVE
                weigh(digit, vec2(weights_lower[j], weights_upper[j]));
//#else
                weigh(digit, vec2(1u, 0u));
//#end
            }
        }
    }
    workgroupBarrier();
    if (group >= step.end) {
        return;
    }
    for (var i = lane; i < 256u; i += 64u) {
        histograms[group * 512u + i] = atomicLoad(&lower[i]);
        histograms[group * 512u + 256u + i] = atomicLoad(&upper[i]);
    }
}
