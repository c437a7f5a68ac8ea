//! Flags of the LoRA adapter to train.

use clap::Args;
use serde::Serialize;

use super::ensure;
use crate::error::{Error, Result};
use crate::model::lora::{LoraConfig, LoraTargets};

/// TRL's default rank.
const USUAL_RANK: usize = 16;

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "LoRA")]
#[serde(rename_all = "kebab-case")]
pub(super) struct LoraArgs {
    /// Rank of the LoRA adapter to train; 0 trains all weights [default: 0]
    #[arg(long, value_name = "R", alias = "lora-rank")]
    lora_r: Option<usize>,
    /// The same as --lora-r 16 (TRL's name)
    #[arg(long, hide = true)]
    #[serde(skip)]
    use_peft: bool,
    /// Scale of the LoRA term: it is multiplied by alpha / r [default: 2 r]
    #[arg(long, value_name = "ALPHA")]
    lora_alpha: Option<f64>,
    /// Modules to adapt, by their names in the model, such as q_proj,v_proj [default: all-linear]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', num_args = 1..)]
    lora_target_modules: Vec<String>,
    /// Multiply the LoRA term by alpha / √r instead of alpha / r (rank-stabilised LoRA)
    #[arg(long)]
    use_rslora: bool,
}

impl LoraArgs {
    /// The settings of a new adapter. `given`: an existing adapter is given, which has its own settings.
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
                let why = "is set by the LoRA adapter given with --adapter: leave out one of the two";
                return Err(Error::config(*flag, why));
            }
            if self.lora_r.is_none() {
                let why = "needs --lora-r R: without it all weights are trained and there is no adapter";
                return Err(Error::config(*flag, why));
            }
        }
        // An explicit 0 switches off the adapter of a configuration file, so its other LoRA flags are no error.
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
