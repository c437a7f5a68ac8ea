//! `oaif reward`.

use super::training;
use crate::Wait;
use crate::cli::args::{HeldOut, RewardPlan};
use crate::data::rows::pairs;
use crate::error::Result;
use crate::train::{DryRun, Policy, RewardRun};

pub fn run(plan: RewardPlan) -> Result<()> {
    let RewardPlan { train, reward, held_out } = plan;
    if train.dataset.is_empty() {
        let gpu = training::open(&train)?;
        let run = DryRun::reward(&gpu, &train.model, &train.options, &reward).wait()?;
        return training::report_assumed(&gpu, &train, &run);
    }
    let prepared = training::prepare(
        &train,
        pairs,
        |gpu, dir, options| Policy::load_for_reward(gpu, dir, options).wait(),
        |policy, rows| {
            let run = RewardRun::of_rows(policy, rows, &train.options, &reward).wait()?;
            match held_out.filter(|_| !train.dry_run) {
                Some(HeldOut { file, most, every }) => {
                    run.with_held_out(pairs(&[file], &train.columns).take(most), every)
                }
                None => Ok(run),
            }
        },
    )?;
    training::on_rows("reward", &train, prepared)
}
