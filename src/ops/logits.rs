//! The transform between the products of the output head and the logits.

use crate::error::{Error, Result};
use crate::gpu::Word;
use crate::gpu::shader::{Constant, Constants, constants};

/// Logits from the products of the output head: z = scale · x, then soft_cap · tanh(z / soft_cap).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitTransform {
    /// The factor of the products: Granite's `1 / logits_scaling`, Cohere's `logit_scale`.
    pub scale: f32,
    /// The bound of the logits: Gemma 2's `final_logit_softcapping`.
    pub soft_cap: Option<f32>,
}

impl Default for LogitTransform {
    /// The identity.
    fn default() -> LogitTransform {
        LogitTransform { scale: 1.0, soft_cap: None }
    }
}

constants! {
    /// The constants of shared/logits.wgsl.
    struct LogitConstants {
        scale: bool,
        soft_cap: bool,
    }
}

impl LogitTransform {
    /// Checks that both are numbers above 0.
    ///
    /// # Errors
    /// [`Error::Config`] naming the one that is not.
    pub fn check(&self) -> Result<()> {
        for (what, value) in [("logit scale", self.scale), ("logit soft cap", self.soft_cap.unwrap_or(1.0))] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::config(what, format!("{value} is not a number above 0")));
            }
        }
        Ok(())
    }

    pub(super) fn constants(&self) -> Vec<(String, Constant)> {
        LogitConstants { scale: self.scale != 1.0, soft_cap: self.soft_cap.is_some() }.list()
    }

    pub(super) fn params(&self) -> impl Iterator<Item = (&'static str, Word)> {
        let scale = (self.scale != 1.0).then_some(("scale", Word::F32(self.scale)));
        scale.into_iter().chain(self.soft_cap.map(|cap| ("soft_cap", Word::F32(cap))))
    }
}
