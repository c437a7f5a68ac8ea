//! Policy gradients on scores: RLOO and GRPO, the reinforcement learning that the paper's baselines use.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ops::PolicyGradient;
use crate::preference::{Objective, PreferenceLoss};

/// What online training minimises.
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
    /// The loss on pairs, if it is one.
    pub fn preference(&self) -> Option<&Objective> {
        match self {
            OnlineLoss::Preference(objective) => Some(objective),
            OnlineLoss::Policy(_) => None,
        }
    }
}

/// A policy gradient: −Σ A log π of the tokens, clipped where another policy sampled them. Log-probabilities are those of the
/// model itself, at temperature 1, whatever it is sampled at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyLoss {
    /// What a response's advantage A is.
    pub advantage: Advantage,
    /// What its tokens count.
    pub tokens: TokenWeights,
    /// The weight of the KL divergence from the reference: in [`Advantage::LeaveOneOut`] subtracted from the scores, else
    /// added to the loss.
    pub beta: f32,
    /// How far below 1 the ratio of the policy to the one that sampled may fall, where that gains.
    pub epsilon: f32,
    /// How far above 1 it may rise, where that gains.
    pub epsilon_high: f32,
}

/// What a response's advantage is, from the scores r of all responses to its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advantage {
    /// r less the mean of the others (RLOO, Ahmadian et al. 2024, arXiv 2402.14740).
    LeaveOneOut,
    /// r less the mean of all, divided by their standard deviation and 1e-4 (GRPO, Shao et al. 2024, arXiv 2402.03300).
    Standardised,
    /// r less the mean of all (Liu et al. 2025, arXiv 2503.20783).
    Centred,
}

/// What the tokens of a step's responses count in its loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenWeights {
    /// Every response's are added up: the mean over responses of their sums.
    Sum,
    /// Alike: the mean over all tokens of the step (DAPO, Yu et al. 2025, arXiv 2503.14476).
    Token,
    /// Every response's are averaged first: the mean over responses of their means.
    Response,
}

impl PolicyLoss {
    /// RLOO with TRL's defaults: β = 0.05, clips of 0.2.
    pub fn rloo() -> PolicyLoss {
        PolicyLoss {
            advantage: Advantage::LeaveOneOut,
            tokens: TokenWeights::Sum,
            beta: 0.05,
            epsilon: 0.2,
            epsilon_high: 0.2,
        }
    }

    /// GRPO with TRL's defaults: β = 0, clips of 0.2, every token counts alike.
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
            false => Err(Error::config("beta", format!("{} is not a number from 0 on", self.beta))),
        }
    }

    /// What the kernel computes: RLOO's KL divergence is in the scores.
    pub(crate) fn gradient(&self) -> PolicyGradient {
        let beta = if self.advantage == Advantage::LeaveOneOut { 0.0 } else { self.beta };
        PolicyGradient { clip_low: self.epsilon, clip_high: self.epsilon_high, beta }
    }

    /// Whether scores are lowered by the KL divergence before anything is learnt from them.
    pub(super) fn lowers_scores(&self) -> bool {
        self.advantage == Advantage::LeaveOneOut && self.beta > 0.0
    }

    /// The advantages of one prompt's responses from their scores; one without a score has none and counts for nobody.
    pub fn advantages(&self, scores: &[Option<f64>]) -> Vec<f64> {
        let known: Vec<f64> = scores.iter().copied().flatten().collect();
        let (n, sum) = (known.len() as f64, known.iter().sum::<f64>());
        let mean = sum / n.max(1.0);
        let squares: f64 = known.iter().map(|score| (score - mean).powi(2)).sum();
        // As torch.std: of n - 1.
        let deviation = if known.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        let advantage = |score: f64| match self.advantage {
            _ if known.len() < 2 => 0.0,
            Advantage::LeaveOneOut => score - (sum - score) / (n - 1.0),
            Advantage::Standardised => (score - mean) / (deviation + 1e-4),
            Advantage::Centred => score - mean,
        };
        scores.iter().map(|score| score.map_or(0.0, advantage)).collect()
    }

    /// What each token of each response counts, from their lengths in tokens.
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
    fn advantages_are_those_of_their_papers() {
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
    fn a_response_without_a_score_has_no_advantage_and_counts_for_nobody() {
        let rloo = PolicyLoss::rloo();
        assert_eq!(rloo.advantages(&[Some(1.0), None, Some(3.0)]), [-2.0, 0.0, 2.0]);
        assert_eq!(rloo.advantages(&[Some(1.0), None]), [0.0, 0.0], "nobody to compare with");
        assert_eq!(PolicyLoss::grpo().advantages(&[Some(2.0), Some(2.0)]), [0.0, 0.0]);
        assert!(rloo.advantages(&[]).is_empty());
    }

    #[test]
    fn the_weights_of_a_step_add_up_to_what_its_mean_is_over() {
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
