//! `oaif reward`.

use super::training;
use crate::cli::args::RewardPlan;
use crate::data::rows::pairs;
use crate::error::Result;
use crate::train::{DryRun, Policy, RewardRun};

pub fn run(plan: RewardPlan) -> Result<()> {
    let RewardPlan { train, reward } = plan;
    if train.dataset.is_empty() {
        let gpu = training::open(&train)?;
        let run = DryRun::reward(&gpu, &train.model, &train.options, &reward)?;
        return training::report_assumed(&gpu, &train, &run);
    }
    let prepared = training::prepare(&train, pairs, Policy::load_for_reward, |policy, rows| {
        RewardRun::of_rows(policy, rows, &train.options, &reward)
    })?;
    training::on_rows("reward", &train, prepared)
}
