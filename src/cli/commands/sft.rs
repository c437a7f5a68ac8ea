//! `oaif sft`.

use super::training;
use crate::Wait;
use crate::cli::args::SftPlan;
use crate::data::rows::completions;
use crate::error::Result;
use crate::train::{DryRun, Policy, SftRun};

pub fn run(plan: SftPlan) -> Result<()> {
    let SftPlan { train, append_eos } = plan;
    if train.dataset.is_empty() {
        let gpu = training::open(&train)?;
        let run = DryRun::sft(&gpu, &train.model, &train.options).wait()?;
        return training::report_assumed(&gpu, &train, &run);
    }
    let prepared = training::prepare(
        &train,
        completions,
        |gpu, dir, options| Policy::load(gpu, dir, options).wait(),
        |policy, rows| SftRun::of_rows(policy, rows, &train.options, append_eos).wait(),
    )?;
    training::on_rows("sft", &train, prepared)
}
