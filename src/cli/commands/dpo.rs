//! `oaif dpo`.

use super::training;
use crate::Wait;
use crate::cli::args::{DpoPlan, HeldOut};
use crate::data::rows::pairs;
use crate::error::Result;
use crate::train::{DpoRun, DryRun, Policy};

pub fn run(plan: DpoPlan) -> Result<()> {
    let DpoPlan { train, dpo, held_out } = plan;
    if train.dataset.is_empty() {
        let gpu = training::open(&train)?;
        let run = DryRun::dpo(&gpu, &train.model, &train.options, &dpo).wait()?;
        return training::report_assumed(&gpu, &train, &run);
    }
    let prepared = training::prepare(
        &train,
        pairs,
        |gpu, dir, options| Policy::load(gpu, dir, options).wait(),
        |policy, rows| {
            let run = DpoRun::of_rows(policy, rows, &train.options, &dpo).wait()?;
            match held_out.filter(|_| !train.dry_run) {
                Some(HeldOut { file, most, every }) => {
                    run.with_held_out(pairs(&[file], &train.columns).take(most), every)
                }
                None => Ok(run),
            }
        },
    )?;
    training::on_rows("dpo", &train, prepared)
}
