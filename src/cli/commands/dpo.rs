//! `oaif dpo`.

use super::summary::{Parameters, Start};
use super::{training, warn_of};
use crate::cli::args::DpoPlan;
use crate::cli::console::Console;
use crate::data::rows::pairs;
use crate::error::Result;
use crate::train::{DpoRun, DryRun, Observer, Policy};

pub fn run(plan: DpoPlan) -> Result<()> {
    let DpoPlan { train, dpo } = plan;
    if train.dataset.is_empty() {
        let gpu = training::open(&train)?;
        let run = DryRun::dpo(&gpu, &train.model, &train.options, &dpo)?;
        return training::report_assumed(&gpu, &train, &run);
    }
    let mut console = Console::new();
    console.phase("opening the rows");
    let pairs = training::begun(pairs(&train.dataset, &train.columns))?;
    console.phase("opening the GPU");
    let gpu = training::open(&train)?;
    console.phase("loading the model");
    let policy = Policy::load(&gpu, &train.model, &train.options)?;
    warn_of(&policy.model);
    let parameters = Parameters::of(&policy.model);
    console.phase("reading and encoding the rows, recording the plans");
    let run = DpoRun::of_rows(policy, pairs, &train.options, &dpo)?;
    if train.dry_run {
        console.clear();
        return training::report(&gpu, &train, run.rows(), run.total_steps());
    }
    let start = Start::of(&gpu, &train, &parameters, run.rows(), run.total_steps(), None);
    console.begins(start.text());
    training::train("dpo", &train, &gpu, console, |sources, control| run.run(sources, control))
}
