//! Checks of the options before a run allocates memory or writes a file.

use super::options::{AlignOptions, PairChoice, ReferenceSync, TrainOptions};
use super::policy_loss::{OnlineLoss, PolicyLoss};
use crate::error::{Error, Result};
use crate::model::{FloatFormat, FrozenFormat};
use crate::preference::Objective;

/// The largest number of rows, or of responses, in a step.
const MOST_ROWS: usize = 1 << 20;

/// The largest number of steps that may be sampled ahead. Responses further ahead would be too far off-policy.
const MOST_AHEAD: usize = 64;

fn refuse(what: &str, found: impl std::fmt::Display, expected: &str) -> Error {
    Error::config(what, format!("is {found}, expected {expected}"))
}

/// Rejects the first count that is 0.
fn check_counts(counts: &[(&str, Option<usize>)]) -> Result<()> {
    match counts.iter().find(|(_, count)| *count == Some(0)) {
        Some((what, _)) => Err(refuse(what, 0, "at least 1")),
        None => Ok(()),
    }
}

impl TrainOptions {
    /// Rejects values with which a run cannot start. The options of the optimiser and of LoRA are checked where they
    /// are used.
    pub(super) fn check(&self) -> Result<()> {
        check_counts(&[
            ("batch-size", Some(self.batch_size)),
            ("accumulation", Some(self.accumulation)),
            ("max-steps", self.max_steps),
            ("save-steps", self.save_steps),
            ("save-total-limit", self.save_total_limit),
            ("max-prompt-length", self.max_prompt_length),
            ("max-length", self.max_length),
        ])?;
        let rows = self.rows_of_step();
        if rows > MOST_ROWS {
            return Err(refuse("batch-size times accumulation", rows, &format!("at most {MOST_ROWS}")));
        }
        if !(self.learning_rate >= 0.0 && (self.learning_rate as f32).is_finite()) {
            return Err(refuse("learning-rate", self.learning_rate, "a number of at least 0"));
        }
        if !(0.0..=1.0).contains(&self.warmup_ratio) {
            return Err(refuse("warmup-ratio", self.warmup_ratio, "a share from 0 to 1"));
        }
        if !(self.epochs > 0.0 && self.epochs.is_finite()) {
            return Err(refuse("epochs", self.epochs, "a number above 0"));
        }
        if let Some(sync) = self.reference_sync {
            self.check_reference_sync(sync)?;
        }
        match (self.base_dtype, self.lora.is_some() || self.adapter.is_some()) {
            (Some(format @ (FrozenFormat::Q8 | FrozenFormat::Q4)), false) => {
                let expected =
                    "a floating-point format for full fine-tuning: integer formats need a LoRA adapter";
                Err(refuse("base-dtype", format.name(), expected))
            }
            _ => Ok(()),
        }
    }
}

impl TrainOptions {
    fn check_reference_sync(&self, sync: ReferenceSync) -> Result<()> {
        check_counts(&[("ref-model-sync-steps", Some(sync.steps))])?;
        if !(sync.alpha > 0.0 && sync.alpha <= 1.0) {
            return Err(refuse("ref-model-mixup-alpha", sync.alpha, "a number above 0 and at most 1"));
        }
        if self.lora.is_some() || self.adapter.is_some() {
            let why = "needs full fine-tuning, because with a LoRA adapter the reference is the base model: leave it \
                       out, or train all weights";
            return Err(Error::config("sync-ref-model", why));
        }
        if let Some(format) = self.base_dtype.filter(|format| *format != FloatFormat::F32.into()) {
            let expected =
                "f32 or no value with sync-ref-model: lower precision loses small updates of the reference";
            return Err(refuse("base-dtype", format.name(), expected));
        }
        Ok(())
    }

    /// Rejects a moving reference with a loss that does not use a reference.
    pub(super) fn check_reference_is_used(&self, loss: &Objective) -> Result<()> {
        match self.reference_sync.is_some() && !loss.needs_reference() {
            true => Err(Error::config(
                "sync-ref-model",
                format!("has no effect, because the loss {loss} uses no reference model: leave it out"),
            )),
            false => Ok(()),
        }
    }

    /// Rejects a moving reference with a loss that does not use a reference.
    fn check_reference_of(&self, loss: &PolicyLoss) -> Result<()> {
        match self.reference_sync.is_some() && loss.beta == 0.0 {
            true => Err(Error::config(
                "sync-ref-model",
                "has no effect, because a loss with beta 0 uses no reference model: leave it out, or set beta",
            )),
            false => Ok(()),
        }
    }
}

impl AlignOptions {
    /// Rejects values with which a run cannot start.
    pub(super) fn check(&self, train: &TrainOptions) -> Result<()> {
        match &self.loss {
            OnlineLoss::Preference(objective) => {
                objective.check()?;
                if objective.needs_reference_samples() && self.num_samples != 2 {
                    let expected =
                        "2 with the loss xpo: one response of the policy and one of the reference model";
                    return Err(refuse("num-samples", self.num_samples, expected));
                }
                train.check_reference_is_used(objective)?;
                if self.soft_labels {
                    objective.check_soft_labels()?;
                }
            }
            OnlineLoss::Policy(loss) => {
                loss.check()?;
                train.check_reference_of(loss)?;
                if self.active > 1 {
                    return Err(refuse(
                        "active",
                        self.active,
                        "1, because a policy gradient learns from every response",
                    ));
                }
                if self.soft_labels {
                    return Err(refuse("soft-labels", "on", "off, because a policy gradient has no labels"));
                }
                if self.pairs == PairChoice::All {
                    let expected =
                        "best-worst, the default, because a policy gradient learns from every response";
                    return Err(refuse("pairs", "all", expected));
                }
                if self.min_confidence > 0.5 {
                    let expected = "0.5, the default, because a policy gradient learns from every response";
                    return Err(refuse("min-confidence", self.min_confidence, expected));
                }
            }
        }
        self.sampling.check()?;
        check_counts(&[("max-new-tokens", Some(self.max_new_tokens)), ("slots", self.slots)])?;
        if self.num_samples < 2 {
            return Err(refuse("num-samples", self.num_samples, "at least 2"));
        }
        check_counts(&[("active", Some(self.active))])?;
        let prompts = train.rows_of_step().saturating_mul(self.active);
        let answers = prompts.saturating_mul(self.num_samples);
        if answers > MOST_ROWS {
            return Err(refuse("num-samples of a step's prompts", answers, &format!("at most {MOST_ROWS}")));
        }
        if !(0.5..=1.0).contains(&self.min_confidence) {
            return Err(refuse("min-confidence", self.min_confidence, "a probability from 0.5 to 1"));
        }
        if !(0.0..=1.0).contains(&self.max_invalid_ratio) {
            return Err(refuse("max-invalid-ratio", self.max_invalid_ratio, "a share from 0 to 1"));
        }
        if self.async_level > MOST_AHEAD {
            return Err(refuse("async-level", self.async_level, &format!("at most {MOST_AHEAD}")));
        }
        Ok(())
    }
}
