//! `oaif sft`.

use super::summary::{Parameters, Start};
use super::{training, warn_of};
use crate::cli::args::SftPlan;
use crate::cli::console::Console;
use crate::data::rows::completions;
use crate::error::Result;
use crate::train::{DryRun, Observer, Policy, SftRun};

pub fn run(plan: SftPlan) -> Result<()> {
    let SftPlan { train, append_eos } = plan;
    if train.dataset.is_empty() {
        let gpu = training::open(&train)?;
        let run = DryRun::sft(&gpu, &train.model, &train.options)?;
        return training::report_assumed(&gpu, &train, &run);
    }
    let mut console = Console::new();
    console.phase("opening the rows");
    let rows = training::begun(completions(&train.dataset, &train.columns))?;
    console.phase("opening the GPU");
    let gpu = training::open(&train)?;
    console.phase("loading the model");
    let policy = Policy::load(&gpu, &train.model, &train.options)?;
    warn_of(&policy.model);
    let parameters = Parameters::of(&policy.model);
    console.phase("reading and encoding the rows, recording the plans");
    let run = SftRun::of_rows(policy, rows, &train.options, append_eos)?;
    if train.dry_run {
        console.clear();
        return training::report(&gpu, &train, run.rows(), run.total_steps());
    }
    let start = Start::of(&gpu, &train, &parameters, run.rows(), run.total_steps(), None);
    console.begins(start.text());
    training::train("sft", &train, &gpu, console, |sources, control| run.run(sources, control))
}
