//! The objective of preference training: a weighted sum of losses, and options that apply to all of them.

use std::fmt;

use super::losses::PreferenceLoss;
use super::options::LossOptions;
use crate::error::{Error, Result};
use crate::ops::{PairLoss, PairTerm};

/// A weighted sum of losses, whose mean over the pairs of a batch is minimised. A [`PreferenceLoss`] converts into it.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// The losses, all different, and their weights. The rewards are those of the first loss that compares responses.
    pub losses: Vec<(PreferenceLoss, f32)>,
    /// ε, the probability that a label is wrong. [`PreferenceLoss::Robust`] corrects for it. For the others, a label p
    /// becomes (1 − ε) p + ε (1 − p), which turns DPO into conservative DPO (Mitchell 2023), as in TRL's CPO trainer
    /// and, before version 1, its DPO trainer. (TRL's `sigmoid` ignores it now.)
    pub label_smoothing: f32,
    /// Multiply the loss of each pair by exp of the mean of log π − log Σ p² over the tokens of the chosen response,
    /// and by the same for the rejected one, without a gradient. This weights a pair by how likely the policy is to
    /// sample it, relative to its average sample (WPO, Zhou et al. 2024, arXiv 2406.11827).
    pub use_weighting: bool,
    /// The weight, in scores and rewards, of log-probabilities of tokens beyond the length of the shorter response of
    /// the pair, under policy and reference (LD-DPO, Liu et al. 2024, arXiv 2409.06411). The NLL of
    /// [`PreferenceLoss::Sft`] is not affected. `None`: no reweighting.
    pub ld_alpha: Option<f32>,
    /// The weight of an additional NLL of the chosen responses, as in [`PreferenceLoss::Sft`] (RPO, Pang et al. 2024,
    /// arXiv 2404.19733). `None`: not added.
    pub rpo_alpha: Option<f32>,
}

impl From<PreferenceLoss> for Objective {
    fn from(loss: PreferenceLoss) -> Objective {
        Objective {
            losses: vec![(loss, 1.0)],
            label_smoothing: loss.usual_smoothing(),
            use_weighting: false,
            ld_alpha: None,
            rpo_alpha: None,
        }
    }
}

impl From<&Objective> for Objective {
    fn from(objective: &Objective) -> Objective {
        objective.clone()
    }
}

impl Objective {
    /// Creates the objective that these options describe.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown loss, a number out of range, and an option that none of the losses uses.
    pub fn parse(options: &LossOptions) -> Result<Objective> {
        let names = if options.loss.is_empty() { "dpo" } else { &options.loss };
        let names: Vec<&str> = names.split(',').map(str::trim).collect();
        let named = |options: &LossOptions| -> Result<Vec<PreferenceLoss>> {
            names.iter().map(|name| PreferenceLoss::named(name, options)).collect()
        };
        let alone = named(options)?;
        // All losses share one β: the default of the first that has one.
        let first = alone.iter().find(|loss| **loss != PreferenceLoss::Sft).map(|loss| loss.beta());
        let losses = named(&LossOptions { beta: options.beta.or(first), ..options.clone() })?;
        let weights = match &options.loss_weights {
            Some(weights) if weights.len() != losses.len() => {
                let why = format!(
                    "has {} values for {} losses: give a weight for each",
                    weights.len(),
                    losses.len()
                );
                return Err(Error::config("loss-weights", why));
            }
            Some(weights) => weights.clone(),
            None => vec![1.0; losses.len()],
        };
        let usual = losses.iter().map(|loss| loss.usual_smoothing()).fold(0.0, f32::max);
        let objective = Objective {
            losses: losses.into_iter().zip(weights).collect(),
            label_smoothing: options.label_smoothing.unwrap_or(usual),
            use_weighting: options.use_weighting,
            ld_alpha: options.ld_alpha,
            rpo_alpha: options.rpo_alpha,
        };
        let used = objective.options().given();
        // Weights may be given for a single loss too.
        let unused = options.given().into_iter().find(|name| !used.contains(name) && *name != "loss-weights");
        if let Some(name) = unused {
            return Err(objective.unused(name));
        }
        objective.check()?;
        Ok(objective)
    }

    /// The options with their resolved values. [`Objective::parse`] creates the same objective from them.
    pub fn options(&self) -> LossOptions {
        let one = matches!(&self.losses[..], [(_, 1.0)]);
        let mut options = LossOptions {
            loss: self.to_string(),
            loss_weights: (!one).then(|| self.losses.iter().map(|(_, weight)| *weight).collect()),
            beta: self.with_beta().map(|loss| loss.beta()),
            label_smoothing: self.any(PreferenceLoss::takes_smoothing).then_some(self.label_smoothing),
            use_weighting: self.use_weighting,
            ld_alpha: self.ld_alpha,
            rpo_alpha: self.rpo_alpha,
            ..LossOptions::default()
        };
        self.losses.iter().for_each(|(loss, _)| loss.write_to(&mut options));
        options
    }

    /// The error for an option that none of the losses uses.
    fn unused(&self, name: &'static str) -> Error {
        let (_, whose) = LossOptions::NAMES.iter().find(|(n, _)| *n == name).expect("the name of an option");
        Error::config(name, format!("applies to {whose}, but the loss is {self}: leave it out"))
    }

    /// Checks everything that [`Objective::parse`] checks.
    ///
    /// # Errors
    /// [`Error::Config`] for an invalid option.
    pub fn check(&self) -> Result<()> {
        let number = |name: &str, value: f32, ok: bool, expected: &str| match ok {
            true => Ok(()),
            false => Err(Error::config(name, format!("{value} is not {expected}"))),
        };
        if self.losses.is_empty() {
            return Err(Error::config("loss", "is empty: name at least one loss"));
        }
        for (i, (loss, weight)) in self.losses.iter().enumerate() {
            loss.check()?;
            number("loss-weights", *weight, *weight > 0.0 && weight.is_finite(), "a positive number")?;
            if self.losses[..i].iter().any(|(other, _)| other.name() == loss.name()) {
                return Err(Error::config("loss", format!("{loss} is named twice: name it once")));
            }
            if *loss != PreferenceLoss::Sft && loss.beta() != self.beta() {
                let why = format!(
                    "is {} for one loss and {} for another: use the same value for all losses",
                    self.beta(),
                    loss.beta()
                );
                return Err(Error::config("beta", why));
            }
        }
        let smoothing = self.label_smoothing;
        number("label-smoothing", smoothing, (0.0..0.5).contains(&smoothing), "at least 0 and below 0.5")?;
        let exo = self.any(|loss| matches!(loss, PreferenceLoss::ExoPair { .. }));
        number(
            "label-smoothing",
            smoothing,
            smoothing > 0.0 || !exo,
            "above 0, which the loss exo_pair needs",
        )?;
        if smoothing > 0.0 && !self.any(PreferenceLoss::takes_smoothing) {
            return Err(self.unused("label-smoothing"));
        }
        if self.use_weighting && self.any(PreferenceLoss::is_of_batch) {
            return Err(self.unused("use-weighting"));
        }
        if let Some(alpha) = self.ld_alpha {
            number("ld-alpha", alpha, (0.0..=1.0).contains(&alpha), "between 0 and 1")?;
            if self.any(PreferenceLoss::is_reference_free) || !self.needs_reference() {
                return Err(self.unused("ld-alpha"));
            }
        }
        if let Some(alpha) = self.rpo_alpha {
            number("rpo-alpha", alpha, alpha > 0.0 && alpha.is_finite(), "a positive number")?;
            if self.any(PreferenceLoss::has_nll) {
                return Err(self.unused("rpo-alpha"));
            }
        }
        Ok(())
    }

    /// Rejects labels other than 1 (such as a judge's probabilities) if a loss does not support them.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the loss.
    pub fn check_soft_labels(&self) -> Result<()> {
        let compares = |loss: PreferenceLoss| loss != PreferenceLoss::Sft;
        let without = self.losses.iter().map(|(loss, _)| *loss).find(|loss| loss.is_of_batch());
        match without.or((!self.any(compares)).then_some(PreferenceLoss::Sft)) {
            None => Ok(()),
            Some(loss) => {
                let why =
                    format!("have no meaning in the loss {loss}: leave them out, or choose another loss");
                Err(Error::config("soft-labels", why))
            }
        }
    }

    fn any(&self, is: impl Fn(PreferenceLoss) -> bool) -> bool {
        self.losses.iter().any(|(loss, _)| is(*loss))
    }

    fn with_beta(&self) -> Option<PreferenceLoss> {
        self.losses.iter().map(|(loss, _)| *loss).find(|loss| *loss != PreferenceLoss::Sft)
    }

    /// β of the losses.
    pub fn beta(&self) -> f32 {
        self.with_beta().unwrap_or(PreferenceLoss::Sft).beta()
    }

    /// Whether the losses depend on the reference model's log-probabilities. Metrics such as the KL divergence always
    /// do.
    pub fn needs_reference(&self) -> bool {
        self.any(PreferenceLoss::needs_reference)
    }

    /// Whether one response of each pair has to be sampled from the reference model.
    pub fn needs_reference_samples(&self) -> bool {
        self.any(|loss| matches!(loss, PreferenceLoss::Xpo { .. }))
    }

    /// The terms that the kernel computes. The first one defines the rewards.
    pub fn terms(&self) -> Vec<PairTerm> {
        let weighted = |(loss, weight): &(PreferenceLoss, f32)| {
            let weight = *weight;
            let terms = loss.terms(self.label_smoothing).into_iter();
            terms.map(move |term| PairTerm { weight: weight * term.weight, ..term })
        };
        let nll = |weight| PairTerm { weight, ..PairTerm::new(PairLoss::Sft, self.beta()) };
        let mut terms: Vec<PairTerm> =
            self.losses.iter().flat_map(weighted).chain(self.rpo_alpha.map(nll)).collect();
        terms.retain(|term| term.weight != 0.0);
        terms.sort_by_key(|term| matches!(term.loss, PairLoss::Sft | PairLoss::Xpo));
        terms
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.losses.iter().map(|(loss, _)| loss.name()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::super::losses::LOSS_NAMES;
    use super::*;

    fn options(loss: &str) -> LossOptions {
        LossOptions { loss: loss.into(), ..LossOptions::default() }
    }

    #[track_caller]
    fn refused(options: LossOptions, parts: &[&str]) {
        let error = Objective::parse(&options).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }

    #[test]
    fn an_objective_is_restored_from_its_options() {
        let mut all: Vec<LossOptions> = LOSS_NAMES.iter().map(|name| options(name)).collect();
        all.push(LossOptions { loss_weights: Some(vec![0.5, 2.0]), rpo_alpha: None, ..options("dpo, sft") });
        all.push(LossOptions {
            beta: Some(0.3),
            label_smoothing: Some(0.1),
            ld_alpha: Some(0.5),
            rpo_alpha: Some(1.0),
            use_weighting: true,
            ..options("robust")
        });
        for options in all {
            let objective = Objective::parse(&options).unwrap();
            let resolved = objective.options();
            assert_eq!(Objective::parse(&resolved).unwrap(), objective);
            let text = serde_json::to_string(&resolved).unwrap();
            assert_eq!(serde_json::from_str::<LossOptions>(&text).unwrap(), resolved);
        }
    }

    #[test]
    fn options_have_the_names_that_errors_use() {
        let serde_json::Value::Object(fields) = serde_json::to_value(LossOptions::default()).unwrap() else {
            panic!()
        };
        let names = LossOptions::NAMES.map(|(name, _)| name);
        assert_eq!(fields.keys().map(String::as_str).collect::<Vec<_>>(), names);
    }

    #[test]
    fn an_error_about_an_unused_option_names_the_losses_that_use_it() {
        let one = Some(0.1);
        refused(
            LossOptions { simpo_gamma: one, ..options("dpo") },
            &["simpo-gamma", "the loss simpo", "dpo"],
        );
        refused(LossOptions { cpo_alpha: one, ..options("simpo") }, &["cpo-alpha", "the loss cpo"]);
        refused(LossOptions { discopop_tau: one, ..options("dpo,sft") }, &["discopop-tau", "dpo,sft"]);
        refused(LossOptions { ipo_average_tokens: true, ..options("slic") }, &["ipo-average-tokens", "ipo"]);
        refused(LossOptions { label_smoothing: one, ..options("kto") }, &["label-smoothing", "kto"]);
        refused(LossOptions { beta: one, ..options("sft") }, &["beta", "sft"]);
        refused(LossOptions { use_weighting: true, ..options("aot") }, &["use-weighting", "aot"]);
        refused(LossOptions { ld_alpha: one, ..options("simpo") }, &["ld-alpha", "simpo"]);
        refused(LossOptions { ld_alpha: one, ..options("sft") }, &["ld-alpha", "sft"]);
        refused(LossOptions { rpo_alpha: one, ..options("dpo,sft") }, &["rpo-alpha", "sft"]);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        refused(LossOptions { beta: Some(0.0), ..options("dpo") }, &["beta", "positive"]);
        refused(LossOptions { label_smoothing: Some(0.5), ..options("robust") }, &["label-smoothing", "0.5"]);
        refused(LossOptions { label_smoothing: Some(0.0), ..options("exo_pair") }, &["exo_pair"]);
        refused(LossOptions { ld_alpha: Some(1.5), ..options("dpo") }, &["ld-alpha", "between 0 and 1"]);
        refused(LossOptions { discopop_tau: Some(0.0), ..options("discopop") }, &["discopop-tau"]);
        refused(LossOptions { simpo_gamma: Some(f32::NAN), ..options("simpo") }, &["simpo-gamma"]);
        refused(LossOptions { loss_weights: Some(vec![1.0]), ..options("dpo,sft") }, &["loss-weights", "2"]);
        refused(LossOptions { loss_weights: Some(vec![1.0, -1.0]), ..options("dpo,sft") }, &["positive"]);
        refused(options("dpo,sigmoid"), &["dpo", "twice"]);
        refused(options("dpo,dop"), &["dop"]);
    }

    #[test]
    fn several_losses_share_the_beta_of_the_first() {
        let beta = |loss: &str| Objective::parse(&options(loss)).unwrap().beta();
        assert_eq!((beta("sft,ipo,dpo"), beta("dpo,ipo"), beta("sft")), (1.0, 0.1, 0.1));
    }

    #[test]
    fn soft_labels_need_a_loss_that_compares_single_pairs() {
        let check = |loss: &str| Objective::parse(&options(loss)).unwrap().check_soft_labels();
        for loss in ["dpo", "exo_pair", "cpo", "dpo,sft"] {
            check(loss).unwrap();
        }
        for loss in ["aot", "dpo,aot_unpaired", "kto", "sft"] {
            let error = check(loss).unwrap_err().to_string();
            assert!(error.contains(loss.rsplit(',').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn rewards_come_from_the_first_loss_that_compares_responses() {
        let terms = Objective::parse(&options("sft,dpo")).unwrap().terms();
        assert_eq!(terms.iter().map(|t| t.loss).collect::<Vec<_>>(), [PairLoss::Sigmoid, PairLoss::Sft]);
    }
}
