//! Flags of the losses: the loss on pairs, the policy gradient, and the reference model.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{ensure, first_given, flag_names, positive, shortest};
use crate::error::{Error, Result};
use crate::preference::{LossOptions, Objective};
use crate::train::options::ReferenceSync;
use crate::train::{Advantage, PolicyLoss, TokenWeights};

/// The preference loss of `align` and `dpo`.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Loss")]
#[serde(rename_all = "kebab-case")]
pub(super) struct LossArgs {
    /// Loss, or a sum of losses such as dpo,sft. With a reference model: dpo (or sigmoid), ipo, slic (or hinge), robust,
    /// exo_pair, nca_pair, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sigmoid_norm, kto, rdpo;
    /// without: simpo, cpo, orpo, and sft (negative log-likelihood of the chosen response). align only: xpo (one response of
    /// each pair is sampled from the reference model), and rloo and grpo (policy gradients on the judge's scores or win rates)
    #[arg(long, value_name = "NAMES", alias = "loss-type", value_delimiter = ',', num_args = 1.., default_value = "dpo")]
    #[serde(serialize_with = "joined")]
    loss: Vec<String>,
    /// Weights of the losses, in the order of --loss [default: 1 each]
    #[arg(long, value_name = "WEIGHTS", value_delimiter = ',', num_args = 1..)]
    loss_weights: Vec<f64>,
    /// Strength of the KL regularisation towards the reference model, for all losses [default: that of the first loss: 0.1;
    /// ipo: 1; slic: 0.002]
    #[arg(long, value_name = "B")]
    beta: Option<f64>,
    /// ipo: average log-probabilities over tokens instead of summing them
    #[arg(long)]
    ipo_average_tokens: bool,
    /// Label smoothing: the probability that a label is wrong, at least 0 and below 0.5 [default: 0; exo_pair: 0.001]
    #[arg(long, value_name = "SHARE")]
    label_smoothing: Option<f64>,
    /// Weight each pair's loss by the policy's probability of its responses (WPO)
    #[arg(long)]
    use_weighting: bool,
    /// Weight, 0 to 1, of the tokens beyond the length of the pair's shorter response (LD-DPO) [default: 1]
    #[arg(long, value_name = "A")]
    ld_alpha: Option<f64>,
    /// Weight of an added negative log-likelihood of the chosen response (RPO) [default: 0]
    #[arg(long, value_name = "A")]
    rpo_alpha: Option<f64>,
    /// discopop: temperature of the mixture of its two losses [default: 0.05]
    #[arg(long, value_name = "T")]
    discopop_tau: Option<f64>,
    /// simpo: target reward margin [default: 0.5]
    #[arg(long, value_name = "G")]
    simpo_gamma: Option<f64>,
    /// cpo: weight of the negative log-likelihood of the chosen response [default: 1]
    #[arg(long, value_name = "A")]
    cpo_alpha: Option<f64>,
    /// kto: weight of chosen responses [default: 1]
    #[arg(long, value_name = "W")]
    desirable_weight: Option<f64>,
    /// kto: weight of rejected responses [default: 1]
    #[arg(long, value_name = "W")]
    undesirable_weight: Option<f64>,
    /// rdpo: length penalty per token of difference in length [default: 0.01]
    #[arg(long, value_name = "A")]
    rdpo_alpha: Option<f64>,
    /// xpo (align): weight of the log-probability of the reference model's response [default: 0.00001]
    #[arg(long, value_name = "A")]
    xpo_alpha: Option<f64>,
}

/// Serialises names in the form of the flag, separated by commas.
fn joined<S: serde::Serializer>(names: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&names.join(","))
}

impl LossArgs {
    pub(super) fn plan(&mut self) -> Result<Objective> {
        let given = |flag: Option<f64>| flag.map(|value| value as f32);
        let weights: Vec<f32> = self.loss_weights.iter().map(|weight| *weight as f32).collect();
        let objective = Objective::parse(&LossOptions {
            loss: self.loss.join(","),
            loss_weights: (!weights.is_empty()).then_some(weights),
            beta: given(self.beta),
            ipo_average_tokens: self.ipo_average_tokens,
            label_smoothing: given(self.label_smoothing),
            use_weighting: self.use_weighting,
            ld_alpha: given(self.ld_alpha),
            rpo_alpha: given(self.rpo_alpha),
            discopop_tau: given(self.discopop_tau),
            simpo_gamma: given(self.simpo_gamma),
            cpo_alpha: given(self.cpo_alpha),
            desirable_weight: given(self.desirable_weight),
            undesirable_weight: given(self.undesirable_weight),
            rdpo_alpha: given(self.rdpo_alpha),
            xpo_alpha: given(self.xpo_alpha),
        })?;
        let resolved = objective.options();
        for (flag, value) in [
            (&mut self.beta, resolved.beta),
            (&mut self.label_smoothing, resolved.label_smoothing.filter(|share| *share > 0.0)),
            (&mut self.discopop_tau, resolved.discopop_tau),
            (&mut self.simpo_gamma, resolved.simpo_gamma),
            (&mut self.cpo_alpha, resolved.cpo_alpha),
            (&mut self.desirable_weight, resolved.desirable_weight),
            (&mut self.undesirable_weight, resolved.undesirable_weight),
            (&mut self.rdpo_alpha, resolved.rdpo_alpha),
            (&mut self.xpo_alpha, resolved.xpo_alpha),
        ] {
            *flag = flag.or(value.map(shortest));
        }
        Ok(objective)
    }
}

/// The scaling of advantages, by TRL's names.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum ScaleRewards {
    /// Divide them by the standard deviation of the scores of a prompt's responses
    Group,
    /// Do not scale them
    None,
}

impl ValueEnum for TokenWeights {
    fn value_variants<'a>() -> &'a [TokenWeights] {
        &[TokenWeights::Token, TokenWeights::Response, TokenWeights::Sum]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            TokenWeights::Token => PossibleValue::new("token").help("Mean over all tokens"),
            TokenWeights::Response => {
                PossibleValue::new("response").help("Mean over responses of the mean over their tokens")
            }
            TokenWeights::Sum => {
                PossibleValue::new("sum").help("Mean over responses of the sum over their tokens")
            }
        })
    }
}

/// The policy gradients of `align`, `--loss rloo` and `grpo`.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Loss")]
#[serde(rename_all = "kebab-case")]
pub(super) struct PolicyLossArgs {
    /// rloo, grpo: lower clipping range: the probability ratio is clipped at 1 - E [default: 0.2]
    #[arg(long, value_name = "E")]
    epsilon: Option<f64>,
    /// rloo, grpo: upper clipping range: the probability ratio is clipped at 1 + E [default: the value of --epsilon]
    #[arg(long, value_name = "E")]
    epsilon_high: Option<f64>,
    /// grpo: scaling of advantages [default: group]
    #[arg(long, value_name = "HOW")]
    scale_rewards: Option<ScaleRewards>,
    /// rloo, grpo: aggregation of the loss over tokens and responses [default: rloo: sum; grpo: token]
    #[arg(long, value_name = "HOW")]
    token_weights: Option<TokenWeights>,
}

impl PolicyLossArgs {
    /// The policy gradient that `--loss` names, if any.
    pub(super) fn named(loss: &LossArgs) -> Result<Option<PolicyLoss>> {
        let usual = |name: &String| match name.as_str() {
            "rloo" => Some(PolicyLoss::rloo()),
            "grpo" => Some(PolicyLoss::grpo()),
            _ => None,
        };
        match (loss.loss.iter().find_map(usual), loss.loss.len()) {
            (Some(usual), 2..) => {
                let why =
                    format!("{} cannot be combined with other losses: leave the others out", usual.name());
                Err(Error::config("--loss", why))
            }
            (found, _) => Ok(found),
        }
    }

    pub(super) fn plan(&mut self, usual: PolicyLoss, loss: &mut LossArgs) -> Result<PolicyLoss> {
        let name = usual.name();
        if let Some(flag) = first_given(loss, &["loss", "beta"]) {
            let why = format!("is for losses on pairs, and the loss is {name}: leave it out");
            return Err(Error::config(flag, why));
        }
        let advantage = match (self.scale_rewards, usual.advantage) {
            (Some(_), Advantage::LeaveOneOut) => {
                let why = "is for the loss grpo, rloo does not scale advantages: leave it out";
                return Err(Error::config("--scale-rewards", why));
            }
            (None | Some(ScaleRewards::Group), usual) => usual,
            (Some(ScaleRewards::None), _) => Advantage::Centred,
        };
        let epsilon = self.epsilon.map_or(usual.epsilon, |e| e as f32);
        let planned = PolicyLoss {
            advantage,
            tokens: *self.token_weights.get_or_insert(usual.tokens),
            beta: loss.beta.map_or(usual.beta, |beta| beta as f32),
            epsilon,
            epsilon_high: self.epsilon_high.map_or(epsilon, |e| e as f32),
        };
        planned.check()?;
        loss.beta.get_or_insert(shortest(planned.beta));
        self.epsilon.get_or_insert(shortest(planned.epsilon));
        self.epsilon_high.get_or_insert(shortest(planned.epsilon_high));
        if planned.advantage != Advantage::LeaveOneOut {
            self.scale_rewards.get_or_insert(ScaleRewards::Group);
        }
        Ok(planned)
    }

    /// Refuses flags of policy gradients for a loss on pairs.
    pub(super) fn refuse(&self) -> Result<()> {
        match first_given(self, &[]) {
            None => Ok(()),
            Some(flag) => Err(Error::config(flag, "is for --loss rloo and grpo: leave it out")),
        }
    }
}

/// The names of the loss's flags.
pub(crate) fn flags_of_losses() -> Vec<String> {
    let mut flags = flag_names::<LossArgs>();
    flags.extend(flag_names::<PolicyLossArgs>());
    flags
}

/// The reference model of `align` and `dpo`.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Loss")]
#[serde(rename_all = "kebab-case")]
pub(super) struct ReferenceArgs {
    /// Update the reference model towards the policy during training (TR-DPO); needs training of all weights
    #[arg(long)]
    sync_ref_model: bool,
    /// Weight of the policy in each update of the reference model: above 0 and at most 1, where 1 copies the policy [default:
    /// 0.6]
    #[arg(long, value_name = "A", requires = "sync_ref_model")]
    ref_model_mixup_alpha: Option<f64>,
    /// Steps between updates of the reference model [default: 512]
    #[arg(long, value_name = "N", requires = "sync_ref_model")]
    ref_model_sync_steps: Option<usize>,
}

impl ReferenceArgs {
    pub(super) fn plan(&mut self) -> Result<Option<ReferenceSync>> {
        if !self.sync_ref_model {
            return Ok(None);
        }
        // TRL's defaults.
        let alpha = *self.ref_model_mixup_alpha.get_or_insert(0.6);
        let steps = *self.ref_model_sync_steps.get_or_insert(512);
        let usable = alpha as f32 > 0.0 && alpha <= 1.0;
        ensure(usable, "--ref-model-mixup-alpha", alpha, "a number above 0 and at most 1")?;
        let steps = positive("--ref-model-sync-steps", steps)?;
        Ok(Some(ReferenceSync { alpha: alpha as f32, steps }))
    }
}
