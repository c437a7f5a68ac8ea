//! `oaif sft`.

use super::{training, warn_of};
use crate::cli::args::SftPlan;
use crate::data::rows::read_completions;
use crate::error::Result;
use crate::train::{DryRun, Policy, SftRun};

pub fn run(plan: SftPlan) -> Result<()> {
    let SftPlan { train, append_eos } = plan;
    training::check_output(&train.options.output_dir)?;
    let Some(dataset) = &train.dataset else {
        let gpu = training::open(&train)?;
        let run = DryRun::sft(&gpu, &train.model, &train.options)?;
        return training::report_assumed(&gpu, &train, &run);
    };
    let rows = read_completions(dataset, &train.columns)?;
    let gpu = training::open(&train)?;
    let policy = Policy::load(&gpu, &train.model, &train.options)?;
    warn_of(&policy.model);
    let run = SftRun::new(policy, &rows, &train.options, append_eos)?;
    if train.dry_run {
        return training::report(&gpu, &train, run.rows(), run.total_steps());
    }
    training::train("sft", &train, &gpu, |sources, control| run.run(sources, control))
}
