//! The table: every op's cases, and the few for a device's first start.

use super::{
    Case, activation, add, advance, attention, ceiling, feed_forward, gather, linear, logprob, norm, optim,
    preference, rotary, sampling, segment,
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
        norm::cases,
        optim::cases,
        preference::cases,
        rotary::cases,
        sampling::cases,
        segment::cases,
    ];
    ops.iter().flat_map(|cases| cases()).collect()
}

/// A few small cases that go through every kernel that matters, for a device's first start.
pub(crate) fn for_first_start() -> Vec<Case> {
    let mut names = ["self_attention_backward", "self_attention_decode", "self_attention_after"].to_vec();
    let mut out = vec![linear::small_case()];
    for case in attention::small_cases().into_iter().chain(feed_forward::small_cases()) {
        if case.kernel == "feed_forward_backward" || names.contains(&case.kernel) {
            names.retain(|name| *name != case.kernel);
            out.push(case);
        }
    }
    out
}
