//! The options of losses, by the names of the command line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The options of preference losses, named as in TRL where it has them. `None` and `false` mean that an option is not
/// given, or, in the options of an [`Objective`](super::Objective), that its losses do not use it. In a file, all keys
/// are present.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LossOptions {
    /// A loss, or several separated by commas, see [`LOSS_NAMES`](super::LOSS_NAMES). Empty means dpo.
    pub loss: String,
    /// The weights of several losses; 1 by default.
    #[serde(deserialize_with = "Option::deserialize")]
    pub loss_weights: Option<Vec<f32>>,
    /// β: one number for all losses, as in TRL. The default is that of the first loss.
    #[serde(deserialize_with = "Option::deserialize")]
    pub beta: Option<f32>,
    /// `ipo`: average log-probabilities over tokens, as in TRL; the paper sums them.
    pub ipo_average_tokens: bool,
    /// The probability that a label is wrong, see [`Objective::label_smoothing`](super::Objective::label_smoothing).
    #[serde(deserialize_with = "Option::deserialize")]
    pub label_smoothing: Option<f32>,
    /// WPO's weights, see [`Objective::use_weighting`](super::Objective::use_weighting).
    pub use_weighting: bool,
    /// LD-DPO's α, see [`Objective::ld_alpha`](super::Objective::ld_alpha).
    #[serde(deserialize_with = "Option::deserialize")]
    pub ld_alpha: Option<f32>,
    /// RPO's α, see [`Objective::rpo_alpha`](super::Objective::rpo_alpha).
    #[serde(deserialize_with = "Option::deserialize")]
    pub rpo_alpha: Option<f32>,
    /// `discopop`: τ.
    #[serde(deserialize_with = "Option::deserialize")]
    pub discopop_tau: Option<f32>,
    /// `simpo`: γ.
    #[serde(deserialize_with = "Option::deserialize")]
    pub simpo_gamma: Option<f32>,
    /// `cpo`: the weight of the chosen response's NLL.
    #[serde(deserialize_with = "Option::deserialize")]
    pub cpo_alpha: Option<f32>,
    /// `kto`: the weight of chosen responses.
    #[serde(deserialize_with = "Option::deserialize")]
    pub desirable_weight: Option<f32>,
    /// `kto`: the weight of rejected responses.
    #[serde(deserialize_with = "Option::deserialize")]
    pub undesirable_weight: Option<f32>,
    /// `rdpo`: α, the margin per token.
    #[serde(deserialize_with = "Option::deserialize")]
    pub rdpo_alpha: Option<f32>,
    /// `xpo`: α, the weight of the responses that the reference model sampled.
    #[serde(deserialize_with = "Option::deserialize")]
    pub xpo_alpha: Option<f32>,
}

impl LossOptions {
    /// The name of every option, and the losses to which it applies.
    pub const NAMES: [(&str, &str); 15] = [
        ("loss", "every run"),
        ("loss-weights", "several losses"),
        ("beta", "every loss"),
        ("ipo-average-tokens", "the loss ipo"),
        ("label-smoothing", "losses that compare: all but kto and sft"),
        ("use-weighting", "losses of single pairs: all but aot, aot_unpaired and kto"),
        ("ld-alpha", "losses with a reference: all but simpo, cpo, orpo and sft"),
        ("rpo-alpha", "losses that have no NLL of the chosen response: all but cpo, orpo and sft"),
        ("discopop-tau", "the loss discopop"),
        ("simpo-gamma", "the loss simpo"),
        ("cpo-alpha", "the loss cpo"),
        ("desirable-weight", "the loss kto"),
        ("undesirable-weight", "the loss kto"),
        ("rdpo-alpha", "the loss rdpo"),
        ("xpo-alpha", "the loss xpo"),
    ];

    /// The names of the options that are given.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let Value::Object(values) = serde_json::to_value(self).expect("plain values") else {
            unreachable!("a struct")
        };
        let is_given = |name: &str| !matches!(values[name], Value::Null | Value::Bool(false));
        LossOptions::NAMES.iter().map(|(name, _)| *name).filter(|name| is_given(name)).collect()
    }
}
