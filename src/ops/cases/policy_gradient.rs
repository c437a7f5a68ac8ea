//! Cases: policy gradients.

use super::{Case, Input};
use crate::ops::{PolicyGradient, policy_gradient};
use crate::reference;

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // T, β, the distance of the sampler and the reference model from the policy, and whether another policy sampled.
    for (t, beta, spread, off_policy) in
        [(1, 0.0, 0.1, false), (67, 0.04, 0.3, false), (130, 0.04, 0.3, true), (13, 1.0, 3.0, true)]
    {
        let options = PolicyGradient { clip_low: 0.2, clip_high: 0.28, beta };
        let near = |seed| Input::normal(seed, t, 1, spread).live(0);
        let mut inputs =
            vec![near(1), near(2), Input::normal(3, t, 1, 1.0).live(0), Input::normal(4, t, 1, 1.0).live(0)];
        if off_policy {
            inputs.push(near(5));
        }
        let who = if off_policy { "off policy" } else { "on policy" };
        out.push(Case::new(
            "policy_gradient",
            format!("T {t} beta {beta} spread {spread} {who}"),
            inputs,
            move |r, x| {
                let out = policy_gradient(r, x[0], x[1], x.get(4).copied(), x[2], x[3], options)?;
                Ok(vec![out.table, out.d_policy])
            },
            move |v| {
                let (mut table, mut d_policy) = (vec![], vec![]);
                let sampler = if off_policy { &v[4] } else { &v[0] };
                let numbers = v[0].iter().zip(&v[1]).zip(sampler).zip(v[2].iter().zip(&v[3]));
                for (((policy, reference), sampler), (advantage, weight)) in numbers {
                    let bounds = [f64::from(1.0 - 0.2f32), f64::from(1.0 + 0.28f32)];
                    let beta = f64::from(beta);
                    let token =
                        reference::policy_gradient(*policy, *reference, *sampler, *advantage, bounds, beta);
                    table.extend([token.loss, token.kl, token.ratio, f64::from(token.clipped)]);
                    d_policy.push(weight * token.d_policy);
                }
                vec![table, d_policy]
            },
        ));
    }
    out
}
