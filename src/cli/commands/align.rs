//! `oaif align`.

use super::{annotator, training};
use crate::cli::args::AlignPlan;
use crate::data::rows::read_prompts;
use crate::error::Result;
use crate::train::{AlignRun, Policy};

pub fn run(plan: AlignPlan) -> Result<()> {
    let AlignPlan { train, align, annotator: judge } = plan;
    training::check_output(&train.options.output_dir)?;
    let prompts = read_prompts(&train.dataset, &train.columns)?;
    let gpu = training::open(&train)?;
    let policy = Policy::load(&gpu, &train.model, &train.options)?;
    let run = AlignRun::new(policy, &prompts, &train.options, &align)?;
    let mut judge = annotator(&gpu, judge, true)?;
    if train.dry_run {
        return training::report(&gpu, &train, run.rows(), run.total_steps());
    }
    training::train(&train, &gpu, |sources, control| run.run(judge.as_mut(), sources, control))
}
