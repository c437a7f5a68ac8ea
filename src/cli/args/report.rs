//! `oaif report`.

use std::path::PathBuf;

use clap::Args;

use super::paths::output_file;
use crate::error::{Error, Result};
use crate::train::run_dir::REPORT;

/// The page that compares runs.
const COMPARISON: &str = "comparison.html";

/// `oaif report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Run folders: one for its report, several for a page that compares them
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Page to write [default: RUN/report.html; of several runs, comparison.html]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `oaif report`, checked.
#[derive(Debug)]
pub(crate) struct ReportPlan {
    pub runs: Vec<PathBuf>,
    pub output: PathBuf,
    /// Whether the page is the run's own report, which is replaced without a check.
    pub replaces: bool,
}

impl ReportArgs {
    pub fn plan(self) -> Result<ReportPlan> {
        for run in &self.runs {
            if !run.is_dir() {
                let why = format!("{} is not a folder: give a run folder", run.display());
                return Err(Error::config("RUN", why));
            }
        }
        let (output, replaces) = match (self.output, self.runs.as_slice()) {
            (Some(path), _) => (output_file("--output", &path)?, false),
            (None, [run]) => (run.join(REPORT), true),
            (None, _) => (COMPARISON.into(), false),
        };
        Ok(ReportPlan { runs: self.runs, output, replaces })
    }
}
