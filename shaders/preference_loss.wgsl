// preference_loss: one term of a loss on pairs and its gradient, one pair per invocation; sequences 2p and 2p + 1 are
// the chosen and the rejected response of pair p. A term that depends on all pairs (BATCH) runs in one workgroup.
//   policy (S), or (S, 2) if SPLIT: a response's first tokens and the rest   responses (S, 3)   pairs (P, 2)
//   log_sum_squares (S) if WEIGHTING
//   ->   table (P, 8)  =, or with ADD its first column +=   d_policy as policy  =, or with ADD +=
//        ranked (P, 4) if SORT: scratch
// responses: log-probability under the reference model, tokens, 1 if the reference model drew it   pairs: label, weight
// The formulas are in reference::preference_loss.

struct Response {
    logp: f32,      // tokens of the second part have weight tail_weight
    plain: f32,     // all tokens have weight 1
    reference: f32,
    tokens: f32,
}

fn response(s: u32) -> Response {
//#if SPLIT
    let parts = vec2(policy[2u * s], policy[2u * s + 1u]);
    let logp = parts[0] + params.tail_weight * parts[1];
    let plain = parts[0] + parts[1];
//#else
    let logp = policy[s];
    let plain = logp;
//#end
    return Response(logp, plain, responses[3u * s], max(responses[3u * s + 1u], 1.0));
}

// The arguments of the loss.
fn score(r: Response) -> f32 {
    let x = select(r.logp - r.reference, r.logp, REFERENCE_FREE);
    return select(x, x / r.tokens, AVERAGE);
}

// The weights of the pair as given and of the swapped pair.
fn label_weights(p: u32) -> vec2<f32> {
    let label = pairs[2u * p];
    return params.label_scale * vec2(label, 1.0 - label) + params.label_shift;
}

// exp of the mean of log p - log Σ p² over the tokens of each response. It has no gradient.
fn policy_weight(p: u32) -> f32 {
//#if WEIGHTING
    let chosen = response(2u * p);
    let rejected = response(2u * p + 1u);
    return exp((chosen.plain - log_sum_squares[2u * p]) / chosen.tokens
        + (rejected.plain - log_sum_squares[2u * p + 1u]) / rejected.tokens);
//#else
    return 1.0;
//#end
}

// ln(1 + x), with its series where 1 + x would round x away.
fn log1p(x: f32) -> f32 {
    return select(log(1.0 + x), x * (1.0 - x * (0.5 - x / 3.0)), abs(x) < 0.01);
}

// ln(1 + exp x), with an exponential that cannot overflow.
fn softplus(x: f32) -> f32 {
    return max(x, 0.0) + log1p(exp(-abs(x)));
}

fn sigmoid(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(e, 1.0, x > 0.0) / (1.0 + e);
}

// 1 - exp x for x < 0, with its series where the difference would cancel.
fn one_minus_exp(x: f32) -> f32 {
    let tail = 1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0)));
    let series = -x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * tail)));
    return select(1.0 - exp(x), series, x > -0.7);
}

// ln p of a probability p, given also 1 - p.
fn log_of(p: f32, other: f32) -> f32 {
    return select(log(p), log1p(-other), p > 0.5);
}

// (l, dl/dm) for a loss of the margin m.
fn margin_loss(m: f32) -> vec2<f32> {
    if (LOSS == IPO) {
        let distance = m - 0.5 / params.beta;
        return vec2(distance * distance, 2.0 * distance);
    }
    if (LOSS == HINGE) {
        return select(vec2(0.0), vec2(1.0 - m, -1.0), m < 1.0);
    }
    if (LOSS == DISCOPOP) {
        let x = m / params.tau;
        let mixed = sigmoid(x);
        let rest = sigmoid(-x);
        let logistic = softplus(-m);
        // exp(-m) alone can overflow.
        let exponential = exp(-m - softplus(-x));
        let slope = rest / params.tau;
        let d = exponential * (slope - 1.0) - logistic * mixed * slope - sigmoid(-m) * rest;
        return vec2(logistic * rest + exponential, d);
    }
    // SIGMOID, ODDS_RATIO, AOT, AOT_UNPAIRED
    return vec2(softplus(-m), -sigmoid(-m));
}

// The same with these weights of the pair as given and of the swapped pair.
fn labelled_loss(m: f32, label: vec2<f32>) -> vec2<f32> {
    if (LOSS == EXO) {
        let p = vec2(sigmoid(m), sigmoid(-m));
        let ratio = -vec2(softplus(-m), softplus(m)) - vec2(log_of(label[0], label[1]), log_of(label[1], label[0]));
        return vec2(dot(p, ratio), p[0] * p[1] * (ratio[0] - ratio[1]));
    }
    let right = margin_loss(m);
    let wrong = margin_loss(-m);
    return vec2(dot(label, vec2(right[0], wrong[0])), label[0] * right[1] - label[1] * wrong[1]);
}

// (l, dl/da, dl/db) for a loss of the better response's score a and the worse one's b separately.
fn response_losses(a: f32, b: f32) -> vec3<f32> {
    let x = params.beta * vec2(a, b);
    let up = vec2(sigmoid(x[0]), sigmoid(x[1]));
    let down = vec2(sigmoid(-x[0]), sigmoid(-x[1]));
    if (LOSS == NCA) {
        let l = softplus(-x[0]) + 0.5 * (softplus(x[0]) + softplus(x[1]));
        return vec3(l, params.beta * vec2(0.5 * up[0] - down[0], 0.5 * up[1]));
    }
    if (LOSS == BCO) {
        return vec3(softplus(-x[0]) + softplus(x[1]), params.beta * vec2(-down[0], up[1]));
    }
    if (LOSS == SPPO) {
        let distance = vec2(a, b) + vec2(-0.5, 0.5) / params.beta;
        return vec3(dot(distance, distance), 2.0 * distance);
    }
    if (LOSS == CENTRE) {
        let sum = a + b;
        return vec3(sum * sum, vec2(2.0 * sum));
    }
    let slope = params.beta * up * down;
    if (LOSS == APO_ZERO) {
        return vec3(down[0] + up[1], -slope[0], slope[1]);
    }
    // APO_DOWN
    let between = sigmoid(x[1] - x[0]);
    let across = params.beta * between * sigmoid(x[0] - x[1]);
    return vec3(up[0] + between, slope[0] - across, across);
}

// (l, dl/da, dl/db) for the margin m = β (a - b) + … of the scores.
fn of_margin(m: f32, label: vec2<f32>) -> vec3<f32> {
    let l = labelled_loss(m, label);
    let d = select(params.beta, 1.0, LOSS == IPO) * l[1];
    return vec3(l[0], d, -d);
}

//#if SORT
// The number of pairs below pair p by their first key, and by their second; pairs with the same key keep their order.
fn ranks(p: u32, count: u32) -> vec2<u32> {
    let mine = vec2(ranked[4u * p], ranked[4u * p + 1u]);
    var below = vec2<u32>();
    for (var q = 0u; q < count; q++) {
        let other = vec2(ranked[4u * q], ranked[4u * q + 1u]);
        below += select(vec2<u32>(), vec2(1u), (other < mine) | ((other == mine) & vec2(q < p)));
    }
    return below;
}

// The pair whose second key has the rank of this pair's first, and the pair whose first key has the rank of this pair's
// second.
fn partners(p: u32, count: u32) -> vec2<u32> {
    let rank = ranks(p, count);
    return min(vec2(u32(ranked[4u * rank[0] + 3u]), u32(ranked[4u * rank[1] + 2u])), vec2(count - 1u));
}

fn policy_ratio(p: u32) -> f32 {
    return response(2u * p).logp - response(2u * p + 1u).logp;
}

fn reference_ratio(p: u32) -> f32 {
    return responses[6u * p] - responses[6u * p + 3u];
}
//#end

// The weight of pair p's loss: the term's, the policy's and the pair's own.
fn weight_of(p: u32) -> f32 {
    return params.weight * policy_weight(p) * pairs[2u * p + 1u];
}

fn put_gradient(s: u32, r: Response, d_score: f32) {
    var d = select(d_score, d_score / r.tokens, AVERAGE);
//#if SPLIT
    var parts = vec2(d, params.tail_weight * d);
//#if ADD
    parts += vec2(d_policy[2u * s], d_policy[2u * s + 1u]);
//#end
    d_policy[2u * s] = parts[0];
    d_policy[2u * s + 1u] = parts[1];
//#else
//#if ADD
    d += d_policy[s];
//#end
    d_policy[s] = d;
//#end
}

// sums: the result of take_sums over the batch.
fn take_pair(p: u32, count: u32, sums: vec3<f32>) {
    let s = 2u * p;
    let chosen = response(s);
    let rejected = response(s + 1u);
    let a = score(chosen);
    let b = score(rejected);
    let label = label_weights(p);
    let weight = weight_of(p);
    var l: vec3<f32>;
    if (LOSS == NCA || LOSS == BCO || LOSS == SPPO || LOSS == CENTRE || LOSS == APO_ZERO || LOSS == APO_DOWN) {
        l = label[0] * response_losses(a, b) + label[1] * response_losses(b, a).xzy;
    } else if (LOSS == ODDS_RATIO) {
        let x = min(vec2(a, b), vec2(-1e-6));
        let rest = vec2(one_minus_exp(x[0]), one_minus_exp(x[1]));
        let loss = labelled_loss((x[0] - log(rest[0])) - (x[1] - log(rest[1])), label);
        l = params.beta * vec3(loss[0], loss[1] / rest[0], -loss[1] / rest[1]);
    } else if (LOSS == KTO) {
        let kl = max(sums.xy / f32(count), vec2(0.0));
        let x = params.beta * vec2(a - kl[1], kl[0] - b);
        let down = vec2(sigmoid(-x[0]), sigmoid(-x[1]));
        let weights = 0.5 * vec2(params.desirable, params.undesirable);
        let slope = params.beta * weights * down * vec2(sigmoid(x[0]), sigmoid(x[1]));
        l = vec3(dot(weights, down), -slope[0], slope[1]);
    } else if (LOSS == SFT) {
        l = vec3(-sums[0] / sums[1], 0.0, 0.0);
    } else if (LOSS == XPO) {
        let drawn = vec2(responses[3u * s + 2u], responses[3u * s + 5u]);
        l = vec3(dot(drawn, vec2(chosen.logp, rejected.logp)), drawn);
    } else if (LOSS == IPO) {
        l = of_margin(a - b, label);
    } else {
        let more = params.margin + params.length_margin * (chosen.tokens - rejected.tokens);
        l = of_margin(params.beta * (a - b) + more, label);
    }
    var d = weight * l.yz;
    if (LOSS == SFT) {
        // Every pair's loss is that of the batch.
        d = vec2(-params.weight * sums[2] / sums[1], 0.0);
    }
//#if SORT
    let partner = partners(p, count);
    if (LOSS == AOT) {
        l = of_margin(params.beta * (policy_ratio(p) - reference_ratio(partner[0])), label);
        d = weight * l.yz;
    } else {
        // AOT_UNPAIRED: the loss of a rank is attributed to the pair whose chosen response has that rank.
        let q = partner[1];
        l = of_margin(params.beta * (a - score(response(2u * partner[0] + 1u))), label);
        d = vec2(weight * l.y, weight_of(q) * of_margin(params.beta * (score(response(2u * q)) - b), label_weights(q)).z);
    }
//#end
    put_gradient(s, chosen, d[0]);
    put_gradient(s + 1u, rejected, d[1]);
    let at = 8u * p;
    let loss = params.weight * policy_weight(p) * l[0];
//#if ADD
    table[at] += loss;
//#else
    let ratios = vec2(chosen.logp - chosen.reference, rejected.logp - rejected.reference);
    let reward = params.beta * select(ratios, vec2(a, b), REFERENCE_FREE);
    let margin = reward[0] - reward[1];
    table[at] = loss;
    table[at + 1u] = reward[0];
    table[at + 2u] = reward[1];
    table[at + 3u] = margin;
    table[at + 4u] = select(0.0, 1.0, margin > 0.0);
    table[at + 5u] = chosen.logp;
    table[at + 6u] = rejected.logp;
    table[at + 7u] = policy_weight(p);
//#end
}

//#if BATCH
//#if SORT
//#else
var<workgroup> lane_sums: array<vec3<f32>, 64>;

// Sums over the batch, the same in every lane. KTO: the scores of the chosen and of the rejected responses; SFT:
// log-probabilities and tokens of the chosen responses, and the weights of the pairs.
fn take_sums(lane: u32, count: u32) -> vec3<f32> {
    var sum = vec3<f32>();
    for (var p = lane; p < count; p += 64u) {
        let chosen = response(2u * p);
        if (LOSS == KTO) {
            sum += vec3(score(chosen), score(response(2u * p + 1u)), 0.0);
        } else {
            sum += vec3(chosen.logp, chosen.tokens, policy_weight(p) * pairs[2u * p + 1u]);
        }
    }
    lane_sums[lane] = sum;
    workgroupBarrier();
    sum = vec3<f32>();
    for (var i = 0u; i < 64u; i++) {
        sum += lane_sums[i];
    }
    return sum;
}
//#end
//#end

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let count = min(extent(params.pairs), extent(params.sequences) / 2u);
//#if BATCH
//#if SORT
    for (var p = lane; p < count; p += 64u) {
        // The sort keys: the log-ratios of policy and reference, or the scores of chosen and rejected responses.
        let scores = vec2(score(response(2u * p)), score(response(2u * p + 1u)));
        let keys = select(scores, vec2(policy_ratio(p), reference_ratio(p)), LOSS == AOT);
        ranked[4u * p] = keys[0];
        ranked[4u * p + 1u] = keys[1];
    }
    storageBarrier();
    for (var p = lane; p < count; p += 64u) {
        let rank = ranks(p, count);
        ranked[4u * rank[0] + 2u] = f32(p);
        ranked[4u * rank[1] + 3u] = f32(p);
    }
    storageBarrier();
    let sums = vec3<f32>();
//#else
    let sums = take_sums(lane, count);
//#end
    for (var p = lane; p < count; p += 64u) {
        take_pair(p, count, sums);
    }
//#else
    let group = group_index(workgroup);
    let p = group * 64u + lane;
    if (group >= step.end || p >= count) {
        return;
    }
    take_pair(p, count, vec3<f32>());
//#end
}
