// sample_best: the best of a part of a row of logits x, one part per workgroup.
//   logits (S, V)  RELATIVE: largest (S, PARTS), the result of this kernel without RELATIVE,  sequences (S)  positions
//   (S)
//   FILTER: state (S, 4) of sample_threshold   ->   best (S, PARTS)  places (S, PARTS)  =
// The largest x_i, or (RELATIVE) the largest z_i + gumbel(uniform(seed, sequence, position, i)) with z_i = (x_i - max
// x) / temperature, at least min_z, and (FILTER) only with x_i of at least the threshold; and its index i, the lowest
// among equals.
//#include row_part
//#if RELATIVE
//#include random
//#end

var<workgroup> numbers: array<f32, 64>;
var<workgroup> lowest: array<u32, 64>;

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let part = part_of(group);
    var value = -1e30;
    var place = 0xffffffffu;
//#if RELATIVE
    let top = largest_of(part.row);
    let sequence = sequences[part.row];
    let position = positions[part.row];
//#if FILTER
    let low = min(state[part.row].x, order(top));
//#end
//#end
    for (var i = part.first + lane * 4u; i < part.last; i += 256u) {
        let x = logits_at(part.row, i);
//#if RELATIVE
        // Four tokens share one hash.
        let bits = pcg4d(vec4(step.seed, sequence, position, i / 4u));
//#end
        for (var j = 0u; j < min(4u, part.last - i); j++) {
//#if RELATIVE
            let z = (x[j] - top) / params.temperature;
            var kept = z >= params.min_z;
//#if FILTER
            kept = kept && order(x[j]) >= low;
//#end
            if (!kept) {
                continue;
            }
            let score = z + gumbel(uniform_number(bits[j]));
//#else
            let score = x[j];
//#end
            if (score > value) {
                value = score;
                place = i + j;
            }
        }
    }
    numbers[lane] = value;
    lowest[lane] = place;
    workgroupBarrier();
    if (group >= step.end || lane > 0u) {
        return;
    }
    for (var i = 1u; i < 64u; i++) {
        if (numbers[i] > value || (numbers[i] == value && lowest[i] < place)) {
            value = numbers[i];
            place = lowest[i];
        }
    }
    best[group] = value;
    places[group] = place;
}
