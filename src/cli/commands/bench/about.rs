//! The program, the machine and the settings of a benchmark.

use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

use crate::bench::Bench;
use crate::bench::Ceilings;
use crate::data::chat::strftime::strftime;
use crate::gpu::{Arithmetic, GpuSummary, Tier, Tuning};

#[derive(Serialize)]
pub(super) struct About {
    pub version: &'static str,
    pub commit: Option<String>,
    /// In UTC.
    pub date: String,
    pub gpu: GpuSummary,
    pub tier: Tier,
    pub arithmetic: Arithmetic,
    /// The chosen shapes of the kernels.
    pub tuning: Tuning,
    /// Measurements of each case.
    pub runs: usize,
    /// Before the first suite.
    pub ceilings: Ceilings,
}

impl About {
    pub fn new(bench: &Bench) -> About {
        let gpu = &bench.gpu;
        About {
            version: env!("CARGO_PKG_VERSION"),
            commit: commit(),
            date: strftime("%Y-%m-%dT%H:%M:%SZ", SystemTime::now()),
            gpu: gpu.summary().clone(),
            tier: gpu.tier(),
            arithmetic: gpu.arithmetic(),
            tuning: gpu.tuning(),
            runs: bench.runs,
            ceilings: bench.ceilings,
        }
    }
}

/// The commit in OAIF_COMMIT at build time, or that of the git checkout that contains the program, with a + if files were
/// changed. `None` without either.
fn commit() -> Option<String> {
    if let Some(commit) = option_env!("OAIF_COMMIT") {
        return Some(commit.to_owned());
    }
    let program = std::env::current_exe().ok()?;
    let checkout =
        program.ancestors().find(|dir| dir.join("Cargo.toml").exists() && dir.join(".git").exists())?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(checkout).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}
