//! `oaif report`.

use std::path::Path;

use crate::cli::args::ReportPlan;
use crate::cli::print;
use crate::error::Result;
use crate::report::Report;

/// Writes the page of a run, or the page that compares several, and prints its path.
pub fn run(plan: ReportPlan) -> Result<()> {
    let report = match plan.runs.as_slice() {
        [run] => of_run(run)?,
        runs => Report::comparing(runs)?,
    };
    match plan.replaces {
        true => report.write(&plan.output)?,
        false => report.replace(&plan.output)?,
    }
    print(plan.output.display())
}

/// The page of a run: of a demo that has ended, with its comparison.
fn of_run(dir: &Path) -> Result<Report> {
    #[cfg(feature = "demo")]
    if let Some(report) = super::demo::report_of(dir)? {
        return Ok(report);
    }
    Report::of_run(dir)
}
