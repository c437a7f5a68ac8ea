//! `oaif dpo`.

use super::{training, warn_of};
use crate::cli::args::DpoPlan;
use crate::data::rows::read_pairs;
use crate::error::Result;
use crate::train::{DpoRun, DryRun, Policy};

pub fn run(plan: DpoPlan) -> Result<()> {
    let DpoPlan { train, dpo } = plan;
    training::check_output(&train.options.output_dir)?;
    let Some(dataset) = &train.dataset else {
        let gpu = training::open(&train)?;
        let run = DryRun::dpo(&gpu, &train.model, &train.options, &dpo)?;
        return training::report_assumed(&gpu, &train, &run);
    };
    let pairs = read_pairs(dataset, &train.columns)?;
    let gpu = training::open(&train)?;
    let policy = Policy::load(&gpu, &train.model, &train.options)?;
    warn_of(&policy.model);
    let run = DpoRun::new(policy, &pairs, &train.options, &dpo)?;
    if train.dry_run {
        return training::report(&gpu, &train, run.rows(), run.total_steps());
    }
    training::train("dpo", &train, &gpu, |sources, control| run.run(sources, control))
}
