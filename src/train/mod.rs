//! Training: supervised, on given preferences, and online.
//!
//! Every step is a line of `metrics.jsonl`. Names are TRL's where it has one; sums and means are over real tokens alone:
//!
//! | name | what |
//! |---|---|
//! | `loss`, `grad_norm`, `learning_rate`, `beta`, `epoch` | mean over the pairs (in `sft`: over completion tokens); norm before clipping |
//! | `rewards/chosen`, `rewards/rejected`, `rewards/margins` | β (log π − log π₀) of a response, summed over its tokens; their difference |
//! | `rewards/accuracies` | share of the pairs with a positive margin |
//! | `logps/chosen`, `logps/rejected` | log π of a response, summed over its tokens |
//! | `objective/kl` | mean over the responses learnt from of log π − log π₀, summed over tokens; in `align` an estimate of the KL divergence |
//! | `objective/entropy` | entropy of the next-token distribution, in nats, mean over tokens |
//! | `objective/scores`, `objective/scores_margin` | the annotator's probability p for the chosen response; 2p − 1 |
//! | `completions/mean_length`, `val/contain_eos_token` | tokens; share of the responses that ended by themselves |
//! | `judge/judged`, `judge/first`, `judge/learnt` | pairs asked about; share won by the first response; pairs learnt from |
//! | `judge/tie`, `judge/invalid`, `judge/identical`, `judge/order_flip` | pairs skipped, and why; pairs whose orders disagree |
//! | `judge/latency_ms` | wall time a judged pair |
//! | `num_tokens`, `non_finite_steps` | so far |
//! | `time/…` | milliseconds of the step and its phases; tokens a second. With `--async-level 1` the sampling was done during the annotation of the step before |

mod align;
mod annotation;
mod check;
mod checkpoint;
pub mod data_table;
mod dpo;
mod dry_run;
mod health;
mod identity;
mod kernels;
pub mod lengths;
mod lock;
mod log;
mod movement;
pub mod options;
mod order;
pub mod pair_step;
mod pair_trainer;
mod policy;
pub mod progress;
mod row_store;
pub mod rows;
pub mod run_dir;
mod sampler;
pub mod schedule;
mod session;
mod sft;
pub mod sft_step;
mod state;

pub use align::AlignRun;
pub use dpo::DpoRun;
pub use dry_run::DryRun;
pub use options::{AlignOptions, DpoOptions, TrainOptions};
pub use policy::Policy;
pub use progress::{Observer, StepEvent};
#[cfg(feature = "cli")]
pub(crate) use session::RunFacts;
pub use session::{Control, Sources};
pub use sft::SftRun;

/// Reads the state of the checkpoint in `dir`: for a fuzz target.
#[doc(hidden)]
pub fn read_state(dir: &std::path::Path) -> crate::Result<()> {
    state::State::read(dir).map(drop)
}

/// Steps of a run over `rows` rows.
fn total_steps(options: &TrainOptions, rows: usize) -> usize {
    let batch = options.batch_size * options.accumulation;
    let epochs = (rows as f64 * options.epochs / batch as f64).ceil() as usize;
    options.max_steps.unwrap_or(epochs).max(1)
}
