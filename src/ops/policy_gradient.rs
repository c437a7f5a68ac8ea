//! Policy-gradient loss of tokens, from their log-probabilities and advantages.

use crate::error::{Error, Result};
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Groups, Launch, Recorder, Tensor, Work, read, write};

/// How far the policy may move from the one that sampled and from the reference model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyGradient {
    /// A ratio below 1 - this is clipped where the advantage is negative.
    pub clip_low: f32,
    /// A ratio above 1 + this is clipped where the advantage is positive.
    pub clip_high: f32,
    /// β, the weight of the KL divergence from the reference model.
    pub beta: f32,
}

/// Results of [`policy_gradient`].
#[derive(Clone, Copy, Debug)]
pub struct PolicyGradientTensors {
    /// One row per token (T, 4), unweighted: the columns are [`PolicyGradientTensors::COLUMNS`].
    pub table: Tensor,
    /// The gradient of Σ weight · loss with respect to the policy's log-probabilities (T, 1), for [`Recorder::backward`].
    pub d_policy: Tensor,
}

impl PolicyGradientTensors {
    /// The columns of `table`; `clipped` is 1 or 0.
    pub const COLUMNS: [&str; 4] = ["loss", "kl", "ratio", "clipped"];
}

constants! {
    struct PolicyGradientConstants {
        /// Whether another policy sampled; otherwise the ratio is exactly 1, without rounding errors.
        off_policy: bool,
    }
}

impl PolicyGradient {
    /// # Errors
    /// [`Error::Config`] for a clip or a β that is not a number from 0 on.
    pub fn check(&self) -> Result<()> {
        let options = [("epsilon", self.clip_low), ("epsilon-high", self.clip_high), ("beta", self.beta)];
        match options.into_iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
            None => Ok(()),
            Some((name, value)) => Err(Error::config(name, format!("{value} is not a number from 0 on"))),
        }
    }
}

/// loss = -min(ρ A, clip(ρ, 1 - clip_low, 1 + clip_high) A) + β (e^(reference - policy) - (reference - policy) - 1) of
/// every token, with ρ = e^(policy - sampler): PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347) and an
/// unbiased estimate of the KL divergence, as in GRPO (Shao et al. 2024, arXiv 2402.03300). Without `sampler`, the
/// policy itself sampled and ρ is 1. It ends the graph: the gradient is a result, and the op has no gradient rule.
///   policy, reference, sampler, advantages, weights (T, 1)  ->  [`PolicyGradientTensors`]
pub fn policy_gradient(
    r: &mut Recorder,
    policy: Tensor,
    reference: Tensor,
    sampler: Option<Tensor>,
    advantages: Tensor,
    weights: Tensor,
    options: PolicyGradient,
) -> Result<PolicyGradientTensors> {
    options.check()?;
    for other in [reference, advantages, weights].into_iter().chain(sampler) {
        assert_eq!((policy.rows, 1), (other.rows, other.cols), "policy_gradient");
    }
    let table = r.tensor("policy gradients", policy.rows, 4);
    let d_policy = r.tensor("d policy", policy.rows, 1);
    let mut args = vec![read("policy", policy), read("reference", reference)];
    args.extend(sampler.map(|sampler| read("sampler", sampler)));
    args.extend([
        read("advantages", advantages),
        read("weights", weights),
        write("table", table),
        write("d_policy", d_policy),
    ]);
    r.launch_detached(Launch {
        kernel: "policy_gradient",
        constants: PolicyGradientConstants { off_policy: sampler.is_some() }.list(),
        params: vec![
            ("tokens", policy.rows.into()),
            ("low", (1.0 - options.clip_low).into()),
            ("high", (1.0 + options.clip_high).into()),
            ("beta", options.beta.into()),
        ],
        args,
        groups: Groups::over(policy.rows, 64),
        work: Work { flops: 30.0, bytes: 40.0 },
    });
    Ok(PolicyGradientTensors { table, d_policy })
}
