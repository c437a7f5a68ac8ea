// policy_gradient: the clipped surrogate loss of each token and its gradient, one token per invocation.
//   policy, reference, advantages, weights (T)  sampler (T) if OFF_POLICY   ->   table (T, 4)  d_policy (T)  =
// ρ = exp(policy - sampler), or 1;  loss = -min(ρ A, clip(ρ, low, high) A) + β kl
// kl = exp(d) - d - 1 with d = reference - policy;  d_policy = weight (-ρ A unless clipped, + β (1 - exp(d)))

// exp(x) - 1, with its series where the difference would cancel.
fn expm1(x: f32) -> f32 {
    let series = x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x / 24.0)));
    return select(exp(x) - 1.0, series, abs(x) < 0.05);
}

// exp(x) - x - 1, with its series where the difference would cancel.
fn expm1_less(x: f32) -> f32 {
    let series = x * x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x / 120.0)));
    return select(exp(x) - x - 1.0, series, abs(x) < 0.2);
}

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let t = group * 64u + lane;
    if (group >= step.end || t >= extent(params.tokens)) {
        return;
    }
    var ratio = 1.0;
//#if OFF_POLICY
    ratio = exp(policy[t] - sampler[t]);
//#end
    let advantage = advantages[t];
    let away = reference[t] - policy[t];
    let free = ratio * advantage;
    let bound = clamp(ratio, params.low, params.high) * advantage;
    // A bound that gives the same value as the unclipped surrogate does not clip.
    let clipped = bound < free;
    let kl = expm1_less(away);
    let at = 4u * t;
    table[at] = params.beta * kl - min(free, bound);
    table[at + 1u] = kl;
    table[at + 2u] = ratio;
    table[at + 3u] = select(0.0, 1.0, clipped);
    d_policy[t] = weights[t] * (select(-free, 0.0, clipped) - params.beta * expm1(away));
}
