//! Training: supervised, on given preferences, and online.
//!
//! A [`Trainer`] takes one step at a time and reports it. Its algorithm is given in pseudo-code at the top of
//! `trainer.rs`. A run drives a trainer to its end and writes the reports into a folder, see [`run_dir`]. The keys of
//! `metrics.jsonl` and `pairs.jsonl` are documented in [`report`].

mod active;
mod align;
mod batches;
mod begin;
mod check;
mod checkpoint;
pub mod data_table;
mod dpo;
mod dry_run;
mod evaluation;
pub(crate) mod habits;
pub(crate) mod health;
mod identity;
mod join;
mod judging;
mod kernels;
pub mod lengths;
mod log;
mod movement;
mod moving_reference;
mod online;
pub mod options;
mod order;
pub mod pair_step;
mod pair_trainer;
mod policy;
mod policy_loss;
pub mod policy_step;
mod policy_trainer;
pub mod progress;
mod ratings;
pub mod report;
pub mod requests;
mod reward;
pub mod reward_step;
mod row_store;
pub mod rows;
mod run;
pub mod run_dir;
mod run_file;
mod sampler;
mod saved;
pub mod schedule;
mod sft;
pub mod sft_step;
mod state;
mod tensorboard;
mod trainer;
mod updater;

pub use align::AlignRun;
pub use dpo::DpoRun;
pub use dry_run::DryRun;
pub(crate) use evaluation::EvalSample;
pub use join::Joined;
pub(crate) use moving_reference::MovingReference;
pub use options::{AlignOptions, DpoOptions, PairChoice, ReferenceSync, RewardOptions, TrainOptions};
pub use policy::{Policy, PolicyFiles};
pub use policy_loss::{Advantage, OnlineLoss, PolicyLoss, TokenWeights};
pub use progress::Observer;
pub use report::StepReport;
pub use requests::Requests;
pub use reward::RewardRun;
pub use run::Sources;
#[cfg(feature = "cli")]
pub(crate) use run_file::RunFile;
pub use sft::SftRun;
pub use trainer::{Control, Trainer};

/// The judge's description of itself (see [`Judge::identity`](crate::judge::Judge::identity)) in the online run in the
/// folder `dir`; `None` for a run without a judge or a checkpoint.
pub fn judge_of_run(dir: &std::path::Path) -> Option<std::collections::BTreeMap<String, String>> {
    let last = run_dir::checkpoints(dir).ok()?.pop()?;
    state::State::read(&last.path).ok()?.identity.judge().cloned()
}

/// Reads the state of the checkpoint in `dir`. Used by a fuzz target.
#[doc(hidden)]
pub fn read_state(dir: &std::path::Path) -> crate::Result<()> {
    state::State::read(dir).map(drop)
}
