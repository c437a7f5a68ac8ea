//! The clipped surrogate loss of one token with its KL term.

/// Results of [`policy_gradient`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenGradient {
    /// The token's loss.
    pub loss: f64,
    /// exp(d) - d - 1 with d = reference - policy.
    pub kl: f64,
    /// exp(policy - sampler).
    pub ratio: f64,
    /// Whether the ratio is clipped, so that the surrogate has no gradient.
    pub clipped: bool,
    /// dloss / dpolicy.
    pub d_policy: f64,
}

/// loss = -min(ρ A, clip(ρ, low, high) A) + β (exp(d) - d - 1), with ρ = exp(policy - sampler) and d = reference - policy.
pub fn policy_gradient(
    policy: f64,
    reference: f64,
    sampler: f64,
    advantage: f64,
    [low, high]: [f64; 2],
    beta: f64,
) -> TokenGradient {
    let ratio = (policy - sampler).exp();
    let d = reference - policy;
    let (free, bound) = (ratio * advantage, ratio.clamp(low, high) * advantage);
    let clipped = bound < free;
    let kl = d.exp_m1() - d;
    let surrogate = if clipped { 0.0 } else { -free };
    TokenGradient {
        loss: beta * kl - free.min(bound),
        kl,
        ratio,
        clipped,
        d_policy: surrogate - beta * d.exp_m1(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    #[test]
    fn gradients_match_central_differences() {
        for (seed, beta) in (150..).zip([0.0, 0.04, 1.0]) {
            for advantage in [-1.3, 0.7] {
                let policy: Vec<f64> = Random::new(seed).values(16).iter().map(|x| x - 2.0).collect();
                let at = |p: f64| policy_gradient(p, -2.2, -1.9, advantage, [0.8, 1.28], beta);
                let d: Vec<f64> = policy.iter().map(|p| at(*p).d_policy).collect();
                let losses = |p: &[f64]| p.iter().map(|p| at(*p).loss).collect();
                assert_gradient("policy_gradient", seed, &policy, &d, &[1.0; 16], losses);
            }
        }
    }

    #[test]
    fn a_ratio_is_clipped_only_in_the_direction_that_increases_the_surrogate() {
        let clipped =
            |ratio: f64, advantage| policy_gradient(ratio.ln(), 0.0, 0.0, advantage, [0.8, 1.2], 0.0).clipped;
        assert!(clipped(1.3, 1.0) && !clipped(0.7, 1.0), "a better response, more and less probable");
        assert!(clipped(0.7, -1.0) && !clipped(1.3, -1.0), "a worse one");
        assert!(!clipped(1.1, 1.0) && !clipped(0.9, -1.0) && !clipped(9.0, 0.0));
    }

    #[test]
    fn at_the_sampler_itself_the_gradient_is_the_advantage() {
        let at = policy_gradient(-2.0, -2.0, -2.0, 0.75, [0.8, 1.2], 0.5);
        assert_close(&[at.loss, at.kl, at.ratio, at.d_policy], &[-0.75, 0.0, 1.0, -0.75]);
    }
}
