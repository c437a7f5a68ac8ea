//! Policy gradient losses on scores: RLOO and GRPO, the reinforcement learning baselines of the paper.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ops::PolicyGradient;
use crate::preference::{Objective, PreferenceLoss};

/// The loss of online training.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OnlineLoss {
    /// A loss on the preferred and the other response.
    Preference(Objective),
    /// A policy gradient on the scores of all responses.
    Policy(PolicyLoss),
}

impl From<Objective> for OnlineLoss {
    fn from(objective: Objective) -> Self {
        OnlineLoss::Preference(objective)
    }
}

impl From<PreferenceLoss> for OnlineLoss {
    fn from(loss: PreferenceLoss) -> Self {
        OnlineLoss::Preference(loss.into())
    }
}

impl From<PolicyLoss> for OnlineLoss {
    fn from(loss: PolicyLoss) -> Self {
        OnlineLoss::Policy(loss)
    }
}

impl OnlineLoss {
    /// The preference loss, if it is one.
    pub fn preference(&self) -> Option<&Objective> {
        match self {
            OnlineLoss::Preference(objective) => Some(objective),
            OnlineLoss::Policy(_) => None,
        }
    }
}

/// A policy gradient loss: −Σ A log π over the tokens, with a clipped ratio for off-policy responses. Log-probabilities
/// are those of the model at temperature 1, whatever the sampling parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyLoss {
    /// How the advantage A of a response is computed.
    pub advantage: Advantage,
    /// The weights of tokens.
    pub tokens: TokenWeights,
    /// The weight of the KL to the reference. With [`Advantage::LeaveOneOut`] it is subtracted from the scores,
    /// otherwise added to the loss.
    pub beta: f32,
    /// The ratio of the policy to the sampling policy is clipped below 1 − this, if the advantage is negative.
    pub epsilon: f32,
    /// The ratio is clipped above 1 + this, if the advantage is positive.
    pub epsilon_high: f32,
}

/// How the advantage of a response is computed from the scores r of all responses to its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advantage {
    /// r minus the mean of the others (RLOO, Ahmadian et al. 2024, arXiv 2402.14740).
    LeaveOneOut,
    /// r minus the mean of all, divided by their standard deviation plus 1e-4 (GRPO, Shao et al. 2024, arXiv
    /// 2402.03300).
    Standardised,
    /// r minus the mean of all (Liu et al. 2025, arXiv 2503.20783).
    Centred,
}

/// The weights of the tokens of a step's responses in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenWeights {
    /// Sum over the tokens of each response, then mean over the responses.
    Sum,
    /// Mean over all tokens of the step (DAPO, Yu et al. 2025, arXiv 2503.14476).
    Token,
    /// Mean over the tokens of each response, then mean over the responses.
    Response,
}

impl PolicyLoss {
    /// RLOO with the defaults of TRL: β = 0.05, clipping at 0.2.
    pub fn rloo() -> PolicyLoss {
        PolicyLoss {
            advantage: Advantage::LeaveOneOut,
            tokens: TokenWeights::Sum,
            beta: 0.05,
            epsilon: 0.2,
            epsilon_high: 0.2,
        }
    }

    /// GRPO with the defaults of TRL: β = 0, clipping at 0.2, equal weights for all tokens.
    pub fn grpo() -> PolicyLoss {
        PolicyLoss {
            advantage: Advantage::Standardised,
            tokens: TokenWeights::Token,
            beta: 0.0,
            epsilon: 0.2,
            epsilon_high: 0.2,
        }
    }

    /// "rloo" or "grpo".
    pub fn name(&self) -> &'static str {
        match self.advantage {
            Advantage::LeaveOneOut => "rloo",
            Advantage::Standardised | Advantage::Centred => "grpo",
        }
    }

    /// # Errors
    /// [`Error::Config`] for numbers below 0 or not finite.
    pub fn check(&self) -> Result<()> {
        self.gradient().check()?;
        match self.beta >= 0.0 && self.beta.is_finite() {
            true => Ok(()),
            false => Err(Error::config("beta", format!("{} is negative or not finite", self.beta))),
        }
    }

    /// The parameters of the kernel. RLOO has its KL penalty in the scores.
    pub(crate) fn gradient(&self) -> PolicyGradient {
        let beta = if self.advantage == Advantage::LeaveOneOut { 0.0 } else { self.beta };
        PolicyGradient { clip_low: self.epsilon, clip_high: self.epsilon_high, beta }
    }

    /// Whether a KL penalty is subtracted from the scores.
    pub(super) fn lowers_scores(&self) -> bool {
        self.advantage == Advantage::LeaveOneOut && self.beta > 0.0
    }

    /// The advantages of the responses to one prompt. A response without a score has the advantage 0 and does not
    /// affect the others.
    pub fn advantages(&self, scores: &[Option<f64>]) -> Vec<f64> {
        let known: Vec<f64> = scores.iter().copied().flatten().collect();
        let (n, sum) = (known.len() as f64, known.iter().sum::<f64>());
        let mean = sum / n.max(1.0);
        let squares: f64 = known.iter().map(|score| (score - mean).powi(2)).sum();
        // With n − 1, as in torch.std.
        let deviation = if known.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        let advantage = |score: f64| match self.advantage {
            _ if known.len() < 2 => 0.0,
            Advantage::LeaveOneOut => score - (sum - score) / (n - 1.0),
            Advantage::Standardised => (score - mean) / (deviation + 1e-4),
            Advantage::Centred => score - mean,
        };
        scores.iter().map(|score| score.map_or(0.0, advantage)).collect()
    }

    /// The weight of each response's tokens, from the lengths in tokens.
    pub(super) fn token_weights(&self, lengths: &[usize]) -> Vec<f32> {
        let responses = lengths.len().max(1) as f64;
        let all: usize = lengths.iter().sum();
        let weight = |length: &usize| match self.tokens {
            TokenWeights::Sum => 1.0 / responses,
            TokenWeights::Token => 1.0 / all.max(1) as f64,
            TokenWeights::Response => 1.0 / (responses * (*length).max(1) as f64),
        };
        lengths.iter().map(|length| weight(length) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_are_those_of_the_papers() {
        let scores = [1.0, 2.0, 6.0].map(Some);
        let of = |advantage| PolicyLoss { advantage, ..PolicyLoss::grpo() }.advantages(&scores);
        assert_eq!(of(Advantage::LeaveOneOut), [-3.0, -1.5, 4.5]);
        assert_eq!(of(Advantage::Centred), [-2.0, -1.0, 3.0]);
        let deviation = 7.0f64.sqrt() + 1e-4;
        let standardised = of(Advantage::Standardised);
        for (found, centred) in standardised.iter().zip([-2.0, -1.0, 3.0]) {
            assert!((found - centred / deviation).abs() < 1e-12, "{standardised:?}");
        }
    }

    #[test]
    fn a_response_without_a_score_has_no_advantage_and_does_not_affect_others() {
        let rloo = PolicyLoss::rloo();
        assert_eq!(rloo.advantages(&[Some(1.0), None, Some(3.0)]), [-2.0, 0.0, 2.0]);
        assert_eq!(rloo.advantages(&[Some(1.0), None]), [0.0, 0.0], "nothing to compare with");
        assert_eq!(PolicyLoss::grpo().advantages(&[Some(2.0), Some(2.0)]), [0.0, 0.0]);
        assert!(rloo.advantages(&[]).is_empty());
    }

    #[test]
    fn token_weights_have_the_expected_sums() {
        let lengths = [3, 1, 4];
        let of = |tokens| {
            let weights = PolicyLoss { tokens, ..PolicyLoss::grpo() }.token_weights(&lengths);
            lengths.iter().zip(weights).map(|(n, w)| *n as f32 * w).sum::<f32>()
        };
        assert!((of(TokenWeights::Token) - 1.0).abs() < 1e-6);
        assert!((of(TokenWeights::Response) - 1.0).abs() < 1e-6);
        assert!((of(TokenWeights::Sum) - 8.0 / 3.0).abs() < 1e-6);
    }
}
