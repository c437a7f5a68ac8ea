//! The table: every op's cases, and the few that run at a device's first start.

use super::{
    Case, activation, add, advance, attention, ceiling, feed_forward, gather, linear, logprob, mix, norm,
    optim, policy_gradient, preference, rotary, sampling, segment, self_attention,
};

/// Every case of every op.
pub fn all_cases() -> Vec<Case> {
    let ops = [
        activation::cases,
        add::cases,
        advance::cases,
        attention::cases,
        ceiling::cases,
        feed_forward::cases,
        gather::cases,
        linear::cases,
        logprob::cases,
        mix::cases,
        norm::cases,
        optim::cases,
        policy_gradient::cases,
        preference::cases,
        rotary::cases,
        sampling::cases,
        segment::cases,
        self_attention::cases,
    ];
    ops.iter().flat_map(|cases| cases()).collect()
}

/// Shapes from real models: few rows, with the models' widths, heads, vocabularies and contexts. They are large, so
/// they are created one after the other.
pub fn real_shapes() -> impl Iterator<Item = Case> {
    let ops = [
        attention::real_shapes,
        feed_forward::real_shapes,
        gather::real_shapes,
        linear::real_shapes,
        logprob::real_shapes,
        norm::real_shapes,
        rotary::real_shapes,
        self_attention::real_shapes,
    ];
    ops.into_iter().flat_map(|cases| cases())
}

/// The largest of them, for which a CPU and `reference` take minutes each.
pub fn largest_shapes() -> impl Iterator<Item = Case> {
    [attention::largest_shapes, logprob::largest_shapes].into_iter().flat_map(|cases| cases())
}

/// A few small cases that cover every kernel that matters, for a device's first start.
pub(crate) fn for_first_start() -> Vec<Case> {
    let mut names = ["self_attention_backward", "self_attention_decode", "self_attention_after"].to_vec();
    let mut out = vec![linear::small_case()];
    for case in self_attention::small_cases().into_iter().chain(feed_forward::small_cases()) {
        if case.kernel == "feed_forward_backward" || names.contains(&case.kernel) {
            names.retain(|name| *name != case.kernel);
            out.push(case);
        }
    }
    out
}
