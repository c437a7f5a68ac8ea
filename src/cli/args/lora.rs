//! The LoRA adapter that is trained.

use clap::Args;
use serde::Serialize;

use super::ensure;
use crate::error::{Error, Result};
use crate::model::lora::{LoraConfig, LoraTargets};

/// The rank that TRL takes where none is given.
const USUAL_RANK: usize = 16;

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "LoRA")]
#[serde(rename_all = "kebab-case")]
pub(super) struct LoraArgs {
    /// Rank of the LoRA adapter to train; 0: train all weights [default: 0]
    #[arg(long, value_name = "R", alias = "lora-rank")]
    lora_r: Option<usize>,
    /// TRL's switch for --lora-r 16
    #[arg(long, hide = true)]
    #[serde(skip)]
    use_peft: bool,
    /// What the LoRA adapter adds is scaled by alpha / r [default: 2 r]
    #[arg(long, value_name = "ALPHA")]
    lora_alpha: Option<f64>,
    /// Modules that get one, by the names of the model's family, such as q_proj,v_proj [default: all-linear]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', num_args = 1..)]
    lora_target_modules: Vec<String>,
    /// What it adds is scaled by alpha / √r instead
    #[arg(long)]
    use_rslora: bool,
}

impl LoraArgs {
    /// The adapter to begin with, unless one is `given` that brings its own settings.
    pub(super) fn plan(&mut self, given: bool) -> Result<Option<LoraConfig>> {
        if self.use_peft {
            self.lora_r.get_or_insert(USUAL_RANK);
        }
        let flags = [
            ("--lora-r", self.lora_r.is_some_and(|r| r > 0)),
            ("--lora-alpha", self.lora_alpha.is_some()),
            ("--lora-target-modules", !self.lora_target_modules.is_empty()),
            ("--use-rslora", self.use_rslora),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, set)| *set) {
            if given {
                let why = "is said by the LoRA adapter that --adapter goes on with: leave one of the two out";
                return Err(Error::config(*flag, why));
            }
            if self.lora_r.is_none() {
                let why = "needs --lora-r R, without which all weights are trained and there is no adapter";
                return Err(Error::config(*flag, why));
            }
        }
        // An explicit 0 switches off the adapter that a configuration describes, so its other flags are no mistake.
        let rank = *self.lora_r.get_or_insert(0);
        if rank == 0 {
            return Ok(None);
        }
        let alpha = *self.lora_alpha.get_or_insert(2.0 * rank as f64);
        ensure(alpha > 0.0 && alpha.is_finite(), "--lora-alpha", alpha, "a positive number")?;
        if self.lora_target_modules.is_empty() {
            self.lora_target_modules.push("all-linear".into());
        }
        let targets = LoraTargets::parse(&self.lora_target_modules)?;
        Ok(Some(LoraConfig { rank, alpha: alpha as f32, rank_stabilised: self.use_rslora, targets }))
    }
}
