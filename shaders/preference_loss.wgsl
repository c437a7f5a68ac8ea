// preference_loss: the loss of each pair and its gradient, an invocation a pair. Sequence 2p is the chosen one.
//   policy, reference (S)  labels, weights (P)  lengths (S) where AVERAGE   ->   table (P, 8)  d_policy (S)  =
// x_s = (policy_s - reference_s) (/ lengths_s),  h = x_chosen - x_rejected,  loss = label l(h) + (1 - label) l(-h)
// d_policy = weight * dloss/dh * (1 for the chosen, -1 for the rejected) (/ lengths_s)

const DPO = 0u;
const IPO = 1u;

// (l(h), dl/dh)
fn loss_at(h: f32) -> vec2<f32> {
    let z = params.beta * h;
    if (LOSS == DPO) {
        // -ln σ(z) = max(-z, 0) + ln(1 + e) and σ(-z), with an e that cannot overflow.
        let e = exp(-abs(z));
        // Where log(1 + e) would round e away, its series.
        let log1p = select(log(1.0 + e), e * (1.0 - e * (0.5 - e / 3.0)), e < 0.01);
        return vec2(max(-z, 0.0) + log1p, -params.beta * select(1.0, e, z > 0.0) / (1.0 + e));
    }
    if (LOSS == IPO) {
        let distance = h - 0.5 / params.beta;
        return vec2(distance * distance, 2.0 * distance);
    }
    return select(vec2(0.0), vec2(1.0 - z, -params.beta), z < 1.0);
}

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let p = group * 64u + lane;
    let s = 2u * p;
    if (group >= step.end || p >= extent(params.pairs) || s + 1u >= extent(params.sequences)) {
        return;
    }
    var share = vec2(1.0);
//#if AVERAGE
    share = 1.0 / max(vec2(lengths[s], lengths[s + 1u]), vec2(1.0));
//#end
    let x = vec2(policy[s] - reference[s], policy[s + 1u] - reference[s + 1u]) * share;
    let h = x[0] - x[1];
    let right = loss_at(h);
    let wrong = loss_at(-h);
    let label = labels[p];
    let loss = label * right[0] + (1.0 - label) * wrong[0];
    let dh = label * right[1] - (1.0 - label) * wrong[1];
    let reward = params.beta * x;
    let margin = reward[0] - reward[1];
    let at = 8u * p;
    table[at] = loss;
    table[at + 1u] = dh;
    table[at + 2u] = reward[0];
    table[at + 3u] = reward[1];
    table[at + 4u] = margin;
    table[at + 5u] = select(0.0, 1.0, margin > 0.0);
    table[at + 6u] = h;
    table[at + 7u] = 0.0;
    d_policy[s] = weights[p] * dh * share[0];
    d_policy[s + 1u] = -weights[p] * dh * share[1];
}
