//! The preference losses: names, parameters, and the terms that the kernel computes.

use std::fmt;

use super::options::LossOptions;
use crate::error::{Error, Result};
use crate::ops::{PairLoss, PairTerm};

/// A loss on a pair of responses.
///
/// For a response, x is log π − log π₀: the summed log-probability of its tokens under the policy minus that under the
/// reference model. a is x of the chosen response, b that of the rejected one, and h = a − b. `beta` is the strength of
/// the pull towards the reference, or, for losses without a reference, the scale of the log-probabilities. A batch is a
/// micro-batch, as in TRL.
///
/// A label p below 1 means that the pair may be reversed: its loss is p times that of the pair plus 1 − p times that of
/// the swapped pair, unless the variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "loss", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PreferenceLoss {
    /// −ln σ(βh) (Rafailov et al. 2023, arXiv 2305.18290). TRL: `sigmoid`.
    Dpo {
        /// β.
        beta: f32,
    },
    /// (h − 1/(2β))² (Azar et al. 2023, arXiv 2310.12036). TRL averages over tokens.
    Ipo {
        /// β.
        beta: f32,
        /// Average log-probabilities over tokens, as in TRL; the paper sums them.
        average_tokens: bool,
    },
    /// max(0, 1 − βh) (Zhao et al. 2023, arXiv 2305.10425). TRL: `hinge`.
    Slic {
        /// β.
        beta: f32,
    },
    /// (−(1 − ε) ln σ(βh) + ε ln σ(−βh)) / (1 − 2ε) with the label smoothing ε: DPO's loss without the bias caused by a
    /// share ε of wrong labels (Chowdhury et al. 2024, arXiv 2403.00409). With ε = 0 it is DPO.
    Robust {
        /// β.
        beta: f32,
    },
    /// σ(βh) ln(σ(βh) / q) + σ(−βh) ln(σ(−βh) / (1 − q)) with q = 1 − ε, or q = (1 − ε) p + ε (1 − p) for a label p,
    /// with the label smoothing ε (Ji et al. 2024, arXiv 2402.00856). ε must be above 0; the default is 1e-3.
    ExoPair {
        /// β.
        beta: f32,
    },
    /// −ln σ(βa) − ½ ln σ(−βa) − ½ ln σ(−βb) (Chen et al. 2024, arXiv 2402.05369).
    NcaPair {
        /// β.
        beta: f32,
    },
    /// −ln σ(βa) − ln σ(−βb) (Jung et al. 2024, arXiv 2404.04656), without the paper's shift of the rewards, as in
    /// TRL's trainer for pairs.
    BcoPair {
        /// β.
        beta: f32,
    },
    /// (a − 1/(2β))² + (b + 1/(2β))² (Wu et al. 2024, arXiv 2405.00675). With a label, its gradient is that of the
    /// paper's loss, whose target is (p − ½)/β.
    SppoHard {
        /// β.
        beta: f32,
    },
    /// −ln σ(β (x − y)), where x and y are the log-ratios of chosen to rejected under the policy and under the
    /// reference, each sorted within the batch (Melnyk et al. 2024, arXiv 2406.05882). Label smoothing works as in DPO;
    /// labels of single pairs have no meaning. Older versions of TRL call it `aot_pair`.
    Aot {
        /// β.
        beta: f32,
    },
    /// −ln σ(β (a − b)), where a and b are each sorted within the batch (Melnyk et al. 2024, arXiv 2406.05882). See
    /// [`Self::Aot`].
    AotUnpaired {
        /// β.
        beta: f32,
    },
    /// (1 − σ(βa)) + σ(βb) (D'Oosterlinck et al. 2024, arXiv 2408.06266): for chosen responses that are better than the
    /// policy's.
    ApoZero {
        /// β.
        beta: f32,
    },
    /// σ(βa) + (1 − σ(βh)) (D'Oosterlinck et al. 2024, arXiv 2408.06266): for chosen responses that are worse than the
    /// policy's.
    ApoDown {
        /// β.
        beta: f32,
    },
    /// −(1 − s) ln σ(βh) + s exp(−βh) with s = σ(βh/τ) (Lu et al. 2024, arXiv 2406.08414).
    Discopop {
        /// β.
        beta: f32,
        /// τ.
        tau: f32,
    },
    /// DPO's loss with a and b divided by the number of tokens of their responses (Lambert et al. 2024, arXiv
    /// 2411.15124).
    SigmoidNorm {
        /// β.
        beta: f32,
    },
    /// −ln σ(β (log π(chosen)/tokens − log π(rejected)/tokens) − γ), without a reference (Meng et al. 2024, arXiv
    /// 2405.14734). With a label, −p ln σ(m) − (1 − p) ln σ(−m) for the argument m of σ, as in TRL: swapping a pair
    /// changes the sign of the margin too. TRL's `simpo` adds the NLL of the chosen response unless `cpo_alpha` is 0;
    /// here this is `simpo,sft`.
    Simpo {
        /// β.
        beta: f32,
        /// γ.
        gamma: f32,
    },
    /// −ln σ(β (log π(chosen) − log π(rejected))) + α NLL, without a reference, with the NLL of [`Self::Sft`] (Xu et
    /// al. 2024, arXiv 2401.08417). The label applies only to the first term.
    Cpo {
        /// β.
        beta: f32,
        /// α.
        alpha: f32,
    },
    /// −β ln σ(o(chosen) − o(rejected)) + NLL with o = ln(p/(1 − p)), ln p = log π / tokens, without a reference, with
    /// the NLL of [`Self::Sft`] (Hong et al. 2024, arXiv 2403.07691, where β is λ). The label applies only to the first
    /// term. TRL's NLL includes the tokens of the prompt; here it is that of the response only.
    Orpo {
        /// β.
        beta: f32,
    },
    /// ½ w₊ (1 − σ(β (a − z₋))) + ½ w₋ (1 − σ(β (z₊ − b))), with ½ because the mean is over responses (Ethayarajh et
    /// al. 2024, arXiv 2402.01306). As in TRL's former `kto_pair`, z₊ = max(0, mean of a over the batch) and z₋ =
    /// max(0, mean of b) estimate the KL divergence for the other half of the loss. TRL's current KTO trainer scores
    /// mismatched responses for it instead. No gradient flows through z₊ and z₋, as in the paper and in TRL. It does
    /// not use labels.
    Kto {
        /// β.
        beta: f32,
        /// w₊, the weight of chosen responses.
        desirable_weight: f32,
        /// w₋, the weight of rejected responses.
        undesirable_weight: f32,
    },
    /// −ln σ(βh + α (tokens of chosen − tokens of rejected)) (Park et al. 2024, arXiv 2403.19159). Not in TRL.
    Rdpo {
        /// β.
        beta: f32,
        /// α.
        alpha: f32,
    },
    /// DPO's loss + α log π of the response that the reference model sampled (Xie et al. 2024, arXiv 2405.21046), as
    /// marked by [`LabelledPair::by_reference`](crate::train::pair_step::LabelledPair::by_reference). In TRL it is the
    /// former XPO trainer, where the option is `alpha`. The label applies only to the first term.
    Xpo {
        /// β.
        beta: f32,
        /// α.
        alpha: f32,
    },
    /// The NLL of the chosen responses, averaged over all their tokens in the batch, as in TRL; it is the same for
    /// every pair. It does not use labels.
    Sft,
}

/// The names of losses: those of this project, which are the values of TRL's `loss_type` where it has the loss, and
/// TRL's other names for the same losses.
pub const LOSS_NAMES: [&str; 24] = [
    "dpo",
    "sigmoid",
    "ipo",
    "slic",
    "hinge",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_pair",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
    "simpo",
    "cpo",
    "orpo",
    "kto",
    "rdpo",
    "xpo",
    "sft",
];

/// The default label smoothing of `exo_pair`, as its paper recommends.
const EXO_SMOOTHING: f32 = 1e-3;
/// β of the rewards if no loss has one.
const USUAL_BETA: f32 = 0.1;

impl PreferenceLoss {
    /// The loss with this name, in this project or in TRL, with default values for its other parameters. The default of
    /// `beta` is 1.0 for IPO and 0.002 for SLiC, as in Guo et al. 2024 (arXiv 2402.04792), and 0.1 for the others.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name or a β that is not a positive number.
    pub fn parse(name: &str, beta: Option<f32>, average_tokens: bool) -> Result<PreferenceLoss> {
        let options = LossOptions { beta, ipo_average_tokens: average_tokens, ..LossOptions::default() };
        let loss = PreferenceLoss::named(name, &options)?;
        if average_tokens && !loss.averages_tokens() {
            return Err(Error::config("ipo-average-tokens", format!("needs the loss ipo, not {loss}")));
        }
        loss.check()?;
        Ok(loss)
    }

    /// The loss with this name and with the parameters given in the options.
    pub(super) fn named(name: &str, options: &LossOptions) -> Result<PreferenceLoss> {
        let beta = options.beta.unwrap_or(match name {
            "ipo" => 1.0,
            "slic" | "hinge" => 0.002,
            _ => USUAL_BETA,
        });
        Ok(match name {
            "dpo" | "sigmoid" => PreferenceLoss::Dpo { beta },
            "ipo" => PreferenceLoss::Ipo { beta, average_tokens: options.ipo_average_tokens },
            "slic" | "hinge" => PreferenceLoss::Slic { beta },
            "robust" => PreferenceLoss::Robust { beta },
            "exo_pair" => PreferenceLoss::ExoPair { beta },
            "nca_pair" => PreferenceLoss::NcaPair { beta },
            "bco_pair" => PreferenceLoss::BcoPair { beta },
            "sppo_hard" => PreferenceLoss::SppoHard { beta },
            "aot" | "aot_pair" => PreferenceLoss::Aot { beta },
            "aot_unpaired" => PreferenceLoss::AotUnpaired { beta },
            "apo_zero" => PreferenceLoss::ApoZero { beta },
            "apo_down" => PreferenceLoss::ApoDown { beta },
            "discopop" => PreferenceLoss::Discopop { beta, tau: options.discopop_tau.unwrap_or(0.05) },
            "sigmoid_norm" => PreferenceLoss::SigmoidNorm { beta },
            "simpo" => PreferenceLoss::Simpo { beta, gamma: options.simpo_gamma.unwrap_or(0.5) },
            "cpo" => PreferenceLoss::Cpo { beta, alpha: options.cpo_alpha.unwrap_or(1.0) },
            "orpo" => PreferenceLoss::Orpo { beta },
            "kto" => PreferenceLoss::Kto {
                beta,
                desirable_weight: options.desirable_weight.unwrap_or(1.0),
                undesirable_weight: options.undesirable_weight.unwrap_or(1.0),
            },
            "rdpo" => PreferenceLoss::Rdpo { beta, alpha: options.rdpo_alpha.unwrap_or(0.01) },
            "xpo" => PreferenceLoss::Xpo { beta, alpha: options.xpo_alpha.unwrap_or(1e-5) },
            "sft" => PreferenceLoss::Sft,
            _ => {
                let why = format!("there is no loss {name:?}: choose from {}", LOSS_NAMES.join(", "));
                return Err(Error::config("loss", why));
            }
        })
    }

    /// The name, one of [`LOSS_NAMES`].
    pub fn name(self) -> &'static str {
        match self {
            PreferenceLoss::Dpo { .. } => "dpo",
            PreferenceLoss::Ipo { .. } => "ipo",
            PreferenceLoss::Slic { .. } => "slic",
            PreferenceLoss::Robust { .. } => "robust",
            PreferenceLoss::ExoPair { .. } => "exo_pair",
            PreferenceLoss::NcaPair { .. } => "nca_pair",
            PreferenceLoss::BcoPair { .. } => "bco_pair",
            PreferenceLoss::SppoHard { .. } => "sppo_hard",
            PreferenceLoss::Aot { .. } => "aot",
            PreferenceLoss::AotUnpaired { .. } => "aot_unpaired",
            PreferenceLoss::ApoZero { .. } => "apo_zero",
            PreferenceLoss::ApoDown { .. } => "apo_down",
            PreferenceLoss::Discopop { .. } => "discopop",
            PreferenceLoss::SigmoidNorm { .. } => "sigmoid_norm",
            PreferenceLoss::Simpo { .. } => "simpo",
            PreferenceLoss::Cpo { .. } => "cpo",
            PreferenceLoss::Orpo { .. } => "orpo",
            PreferenceLoss::Kto { .. } => "kto",
            PreferenceLoss::Rdpo { .. } => "rdpo",
            PreferenceLoss::Xpo { .. } => "xpo",
            PreferenceLoss::Sft => "sft",
        }
    }

    /// The terms that the kernel computes, with the label smoothing `smoothing`. The rewards are those of the first
    /// term.
    pub(super) fn terms(self, smoothing: f32) -> Vec<PairTerm> {
        let beta = self.beta();
        // A label p becomes (1 - ε) p + ε (1 - p).
        let term = |loss| PairTerm {
            label_scale: 1.0 - 2.0 * smoothing,
            label_shift: smoothing,
            ..PairTerm::new(loss, beta)
        };
        let nll = |weight| PairTerm { weight, ..PairTerm::new(PairLoss::Sft, beta) };
        let free = |loss| PairTerm { reference_free: true, ..term(loss) };
        match self {
            PreferenceLoss::Dpo { .. } => vec![term(PairLoss::Sigmoid)],
            PreferenceLoss::Ipo { average_tokens, .. } => {
                vec![PairTerm { average: average_tokens, ..term(PairLoss::Ipo) }]
            }
            PreferenceLoss::Slic { .. } => vec![term(PairLoss::Hinge)],
            PreferenceLoss::Robust { .. } => {
                // The inverse of smoothing: p becomes (p - ε) / (1 - 2ε).
                let scale = 1.0 / (1.0 - 2.0 * smoothing);
                let shift = -smoothing * scale;
                vec![PairTerm { label_scale: scale, label_shift: shift, ..term(PairLoss::Sigmoid) }]
            }
            PreferenceLoss::ExoPair { .. } => vec![term(PairLoss::Exo)],
            PreferenceLoss::NcaPair { .. } => vec![term(PairLoss::Nca)],
            PreferenceLoss::BcoPair { .. } => vec![term(PairLoss::Bco)],
            PreferenceLoss::SppoHard { .. } => vec![term(PairLoss::Sppo)],
            PreferenceLoss::Aot { .. } => vec![term(PairLoss::Aot)],
            PreferenceLoss::AotUnpaired { .. } => vec![term(PairLoss::AotUnpaired)],
            PreferenceLoss::ApoZero { .. } => vec![term(PairLoss::ApoZero)],
            PreferenceLoss::ApoDown { .. } => vec![term(PairLoss::ApoDown)],
            PreferenceLoss::Discopop { tau, .. } => vec![PairTerm { tau, ..term(PairLoss::Discopop) }],
            PreferenceLoss::SigmoidNorm { .. } => {
                vec![PairTerm { average: true, ..term(PairLoss::Sigmoid) }]
            }
            PreferenceLoss::Simpo { gamma, .. } => {
                vec![PairTerm { average: true, margin: -gamma, ..free(PairLoss::Sigmoid) }]
            }
            PreferenceLoss::Cpo { alpha, .. } => vec![free(PairLoss::Sigmoid), nll(alpha)],
            PreferenceLoss::Orpo { .. } => {
                vec![PairTerm { average: true, ..free(PairLoss::OddsRatio) }, nll(1.0)]
            }
            PreferenceLoss::Kto { desirable_weight, undesirable_weight, .. } => vec![PairTerm {
                desirable: desirable_weight,
                undesirable: undesirable_weight,
                ..PairTerm::new(PairLoss::Kto, beta)
            }],
            PreferenceLoss::Rdpo { alpha, .. } => {
                vec![PairTerm { length_margin: alpha, ..term(PairLoss::Sigmoid) }]
            }
            PreferenceLoss::Xpo { alpha, .. } => {
                vec![
                    term(PairLoss::Sigmoid),
                    PairTerm { weight: alpha, ..PairTerm::new(PairLoss::Xpo, beta) },
                ]
            }
            PreferenceLoss::Sft => vec![nll(1.0)],
        }
    }

    /// Writes the parameters to the options of their names.
    pub(super) fn write_to(self, options: &mut LossOptions) {
        match self {
            PreferenceLoss::Ipo { average_tokens, .. } => options.ipo_average_tokens = average_tokens,
            PreferenceLoss::Discopop { tau, .. } => options.discopop_tau = Some(tau),
            PreferenceLoss::Simpo { gamma, .. } => options.simpo_gamma = Some(gamma),
            PreferenceLoss::Cpo { alpha, .. } => options.cpo_alpha = Some(alpha),
            PreferenceLoss::Kto { desirable_weight, undesirable_weight, .. } => {
                options.desirable_weight = Some(desirable_weight);
                options.undesirable_weight = Some(undesirable_weight);
            }
            PreferenceLoss::Rdpo { alpha, .. } => options.rdpo_alpha = Some(alpha),
            PreferenceLoss::Xpo { alpha, .. } => options.xpo_alpha = Some(alpha),
            _ => {}
        }
    }

    /// Rejects parameters out of range.
    pub(crate) fn check(self) -> Result<()> {
        let beta = self.beta();
        if !(beta > 0.0 && beta.is_finite()) {
            return Err(Error::config("beta", format!("{beta} is not a positive number")));
        }
        let mut options = LossOptions::default();
        self.write_to(&mut options);
        if let Some(tau) = options.discopop_tau.filter(|tau| !(*tau > 0.0 && *tau <= 1.0)) {
            return Err(Error::config("discopop-tau", format!("{tau} is not above 0 and at most 1")));
        }
        for (name, value) in [
            ("simpo-gamma", options.simpo_gamma),
            ("cpo-alpha", options.cpo_alpha),
            ("desirable-weight", options.desirable_weight),
            ("undesirable-weight", options.undesirable_weight),
            ("rdpo-alpha", options.rdpo_alpha),
            ("xpo-alpha", options.xpo_alpha),
        ] {
            if let Some(value) = value.filter(|value| !(*value >= 0.0 && value.is_finite())) {
                return Err(Error::config(name, format!("{value} is not 0 or a positive number")));
            }
        }
        Ok(())
    }

    /// β. For [`PreferenceLoss::Sft`] it only scales the rewards.
    pub fn beta(self) -> f32 {
        match self {
            PreferenceLoss::Dpo { beta }
            | PreferenceLoss::Ipo { beta, .. }
            | PreferenceLoss::Slic { beta }
            | PreferenceLoss::Robust { beta }
            | PreferenceLoss::ExoPair { beta }
            | PreferenceLoss::NcaPair { beta }
            | PreferenceLoss::BcoPair { beta }
            | PreferenceLoss::SppoHard { beta }
            | PreferenceLoss::Aot { beta }
            | PreferenceLoss::AotUnpaired { beta }
            | PreferenceLoss::ApoZero { beta }
            | PreferenceLoss::ApoDown { beta }
            | PreferenceLoss::Discopop { beta, .. }
            | PreferenceLoss::SigmoidNorm { beta }
            | PreferenceLoss::Simpo { beta, .. }
            | PreferenceLoss::Cpo { beta, .. }
            | PreferenceLoss::Orpo { beta }
            | PreferenceLoss::Kto { beta, .. }
            | PreferenceLoss::Rdpo { beta, .. }
            | PreferenceLoss::Xpo { beta, .. } => beta,
            PreferenceLoss::Sft => USUAL_BETA,
        }
    }

    /// Whether log-probabilities are averaged over tokens, as an option of [`PreferenceLoss::Ipo`].
    pub fn averages_tokens(self) -> bool {
        matches!(self, PreferenceLoss::Ipo { average_tokens: true, .. })
    }

    /// Whether the loss depends on the reference model's log-probabilities. For [`PreferenceLoss::Sft`] only the
    /// rewards do.
    pub fn needs_reference(self) -> bool {
        !self.is_reference_free() && self != PreferenceLoss::Sft
    }

    /// Whether scores and rewards depend only on the policy's log-probabilities.
    pub(super) fn is_reference_free(self) -> bool {
        matches!(
            self,
            PreferenceLoss::Simpo { .. } | PreferenceLoss::Cpo { .. } | PreferenceLoss::Orpo { .. }
        )
    }

    /// Whether the loss uses label smoothing.
    pub(super) fn takes_smoothing(self) -> bool {
        !matches!(self, PreferenceLoss::Kto { .. } | PreferenceLoss::Sft)
    }

    /// The default label smoothing.
    pub(super) fn usual_smoothing(self) -> f32 {
        if matches!(self, PreferenceLoss::ExoPair { .. }) { EXO_SMOOTHING } else { 0.0 }
    }

    /// Whether the loss compares scores across pairs of the batch, so that labels and weights of single pairs have no
    /// meaning.
    pub(super) fn is_of_batch(self) -> bool {
        matches!(
            self,
            PreferenceLoss::Aot { .. } | PreferenceLoss::AotUnpaired { .. } | PreferenceLoss::Kto { .. }
        )
    }

    /// Whether the loss includes the NLL of the chosen response.
    pub(super) fn has_nll(self) -> bool {
        matches!(self, PreferenceLoss::Cpo { .. } | PreferenceLoss::Orpo { .. } | PreferenceLoss::Sft)
    }
}

impl fmt::Display for PreferenceLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trl_names_mean_the_same_losses() {
        let parse = |name| PreferenceLoss::parse(name, None, false).unwrap();
        for (ours, trls) in [("dpo", "sigmoid"), ("slic", "hinge"), ("aot", "aot_pair")] {
            assert_eq!(parse(trls), parse(ours));
        }
        assert_eq!(parse("slic").beta(), 0.002);
    }

    #[test]
    fn every_name_parses_to_a_loss_with_a_stable_name() {
        for name in LOSS_NAMES {
            let loss = PreferenceLoss::parse(name, None, false).unwrap();
            assert_eq!(PreferenceLoss::parse(loss.name(), None, false).unwrap(), loss);
            assert_eq!(serde_json::to_value(loss).unwrap()["loss"], loss.name());
        }
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
