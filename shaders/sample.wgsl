// sample: a token of each row of logits x, one workgroup a sequence.
//   logits (S, V)  sequences (S)  positions (S)   ->   ids (S)  =
// The largest of z_i + gumbel(uniform(seed, sequence, position, i)) with z_i = (x_i - max x) / temperature, among
// the x_i of at least a threshold; the lowest i among equals. GREEDY: the largest x_i.
// min_z: ln min_p
//#include random
//#include workgroup_sum

var<workgroup> numbers: array<f32, 64>;
var<workgroup> places: array<u32, 64>;

// An integer that orders as the float does.
fn order(x: f32) -> u32 {
    let bits = select(bitcast<u32>(x), 0u, x == 0.0); // -0 is 0
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

//#if GREEDY
//#else
// What the x of order at least `low` weigh: one each, or (by_mass) exp z.
fn weight(lane: u32, at: u32, largest: f32, low: u32, by_mass: bool) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < params.cols; i += 64u) {
        let x = logits[at + i];
        if (order(x) >= low) {
            sum += select(1.0, exp((x - largest) / params.temperature), by_mass);
        }
    }
    return workgroup_sum(lane, sum);
}

// The highest order from which on the x of order at least `low` weigh `goal` or more, found bit by bit.
fn threshold(lane: u32, at: u32, largest: f32, low: u32, goal: f32, by_mass: bool) -> u32 {
    var found = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        let sum = weight(lane, at, largest, max(found | bit, low), by_mass);
        found = select(found, found | bit, sum >= goal);
    }
    return max(found, low);
}
//#end

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let row = min(group, extent(params.rows) - 1u);
    let at = row * params.cols;
    // The lane's best, and the first place where it is.
    var best = -1e30;
    var place = 0xffffffffu;
    for (var i = lane; i < params.cols; i += 64u) {
        let x = logits[at + i];
        if (x > best) {
            best = x;
            place = i;
        }
    }
//#if GREEDY
//#else
    numbers[lane] = best;
    workgroupBarrier();
    var largest = best;
    for (var i = 0u; i < 64u; i++) {
        largest = max(largest, numbers[i]);
    }
    workgroupBarrier();
    var low = 0u;
//#if TOP_K
    low = threshold(lane, at, largest, low, params.top_k, false);
//#end
//#if TOP_P
    let mass = weight(lane, at, largest, low, true);
    low = threshold(lane, at, largest, low, params.top_p * mass, true);
//#end
    low = min(low, order(largest));
    best = -1e30;
    place = 0xffffffffu;
    let sequence = sequences[row];
    let position = positions[row];
    // Four tokens share a hash.
    for (var i = lane * 4u; i < params.cols; i += 256u) {
        let bits = pcg4d(vec4(step.seed, sequence, position, i / 4u));
        for (var j = 0u; j < min(4u, params.cols - i); j++) {
            let x = logits[at + i + j];
            let z = (x - largest) / params.temperature;
            if (order(x) >= low && z >= params.min_z) {
                let score = z + gumbel(uniform_number(bits[j]));
                if (score > best) {
                    best = score;
                    place = i + j;
                }
            }
        }
    }
//#end
    numbers[lane] = best;
    places[lane] = place;
    workgroupBarrier();
    for (var i = 0u; i < 64u; i++) {
        if (numbers[i] > best || (numbers[i] == best && places[i] < place)) {
            best = numbers[i];
            place = places[i];
        }
    }
    if (group < step.end && lane == 0u) {
        ids[row] = place;
    }
}
