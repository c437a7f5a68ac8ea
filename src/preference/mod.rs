//! The preference losses, chosen by name.

use std::fmt;

use crate::error::{Error, Result};
pub use crate::ops::PairLoss;

/// A loss on h, the policy's log-ratio of chosen to rejected minus the reference's: see `reference::preference`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "loss", rename_all = "lowercase")]
pub enum PreferenceLoss {
    /// −log σ(βh) (Rafailov et al. 2023, arXiv 2305.18290).
    Dpo {
        /// Strength of the pull towards the reference.
        beta: f32,
    },
    /// (h − 1/(2β))² (Azar et al. 2023, arXiv 2310.12036).
    Ipo {
        /// Strength of the pull towards the reference.
        beta: f32,
        /// Average log-probabilities over tokens, as some trainers do; the paper's form sums them.
        average_tokens: bool,
    },
    /// max(0, 1 − βh) (Zhao et al. 2023, arXiv 2305.10425).
    Slic {
        /// Strength of the pull towards the reference.
        beta: f32,
    },
}

/// The names that [`PreferenceLoss::parse`] takes.
pub const LOSS_NAMES: [&str; 5] = ["dpo", "sigmoid", "ipo", "slic", "hinge"];

impl PreferenceLoss {
    /// A loss by its name, in this project's or TRL's terms. Without `beta`: 0.1 for DPO, 1.0 for IPO, 0.002 for
    /// SLiC, as in Guo et al. 2024 (arXiv 2402.04792).
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name or a β that is not a positive number.
    pub fn parse(name: &str, beta: Option<f32>, average_tokens: bool) -> Result<PreferenceLoss> {
        let loss = match name {
            "dpo" | "sigmoid" => PreferenceLoss::Dpo { beta: beta.unwrap_or(0.1) },
            "ipo" => PreferenceLoss::Ipo { beta: beta.unwrap_or(1.0), average_tokens },
            "slic" | "hinge" => PreferenceLoss::Slic { beta: beta.unwrap_or(0.002) },
            _ => {
                let why = format!("no loss is called {name:?}: choose from {}", LOSS_NAMES.join(", "));
                return Err(Error::config("loss", why));
            }
        };
        if average_tokens && !matches!(loss, PreferenceLoss::Ipo { .. }) {
            return Err(Error::config("ipo-average-tokens", format!("needs --loss ipo, not {loss}")));
        }
        loss.check()?;
        Ok(loss)
    }

    /// Refuses a β that is not a positive number.
    pub(crate) fn check(self) -> Result<()> {
        let beta = self.beta();
        match beta > 0.0 && beta.is_finite() {
            true => Ok(()),
            false => Err(Error::config("beta", format!("{beta} is not a positive number"))),
        }
    }

    /// β.
    pub fn beta(self) -> f32 {
        match self {
            PreferenceLoss::Dpo { beta }
            | PreferenceLoss::Ipo { beta, .. }
            | PreferenceLoss::Slic { beta } => beta,
        }
    }

    /// The function of h.
    pub fn kind(self) -> PairLoss {
        match self {
            PreferenceLoss::Dpo { .. } => PairLoss::Dpo,
            PreferenceLoss::Ipo { .. } => PairLoss::Ipo,
            PreferenceLoss::Slic { .. } => PairLoss::Slic,
        }
    }

    /// Whether log-probabilities are averaged over tokens.
    pub fn averages_tokens(self) -> bool {
        matches!(self, PreferenceLoss::Ipo { average_tokens: true, .. })
    }
}

impl fmt::Display for PreferenceLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PreferenceLoss::Dpo { .. } => "dpo",
            PreferenceLoss::Ipo { .. } => "ipo",
            PreferenceLoss::Slic { .. } => "slic",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trl_names_mean_the_same_losses() {
        let parse = |name| PreferenceLoss::parse(name, None, false).unwrap();
        assert_eq!(parse("sigmoid"), parse("dpo"));
        assert_eq!(parse("hinge"), parse("slic"));
        assert_eq!(parse("slic").beta(), 0.002);
    }

    #[test]
    fn an_unknown_loss_names_the_known_ones() {
        let error = PreferenceLoss::parse("dop", None, false).unwrap_err().to_string();
        assert!(error.contains("dpo, sigmoid, ipo"), "{error}");
        assert!(PreferenceLoss::parse("dpo", Some(-1.0), false).is_err());
        assert!(PreferenceLoss::parse("dpo", Some(f32::NAN), false).is_err());
        assert!(PreferenceLoss::parse("dpo", None, true).is_err());
    }
}
