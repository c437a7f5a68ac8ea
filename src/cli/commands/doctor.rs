//! `oaif doctor`.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Wait;
use crate::bench::Ceilings;
use crate::cli::args::DoctorPlan;
use crate::cli::console::Console;
use crate::cli::print;
use crate::cli::ranks::ranks;
use crate::error::{Error, Result};
use crate::gpu::{
    Arithmetic, ChosenTile, Gpu, GpuSummary, Products, StagedProducts, UnrolledTiles, list_gpus,
};
use crate::ops::{Case, CaseReport, all_cases};
use crate::tuning::Tuned;

/// The host, the GPU and the test results of a rank.
#[derive(Serialize, Deserialize)]
struct RankResult {
    host: String,
    gpu: GpuSummary,
    tier: String,
    kernel_cases: usize,
    kernel_failures: usize,
}

impl Display for RankResult {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let RankResult { host, gpu, tier, kernel_cases, kernel_failures } = self;
        let right = kernel_cases - kernel_failures;
        write!(
            f,
            "{host}: GPU {} {} ({}), {tier}, {right} of {kernel_cases} kernel cases",
            gpu.index, gpu.name, gpu.backend
        )
    }
}

/// The host name.
fn host() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    return std::env::var("COMPUTERNAME").unwrap_or_default();
}

pub fn run(mut plan: DoctorPlan) -> Result<()> {
    let (gpus, ranks) = (list_gpus().wait(), ranks());
    plan.gpu.choose_for(&ranks, &gpus);
    if !plan.json && !gpus.is_empty() {
        // Before a GPU is opened, because its driver may end the program.
        print(format!("oaif {}", env!("CARGO_PKG_VERSION")))?;
        for gpu in &gpus {
            print(format!("GPU {} {} ({}, {}, {})", gpu.index, gpu.name, gpu.kind, gpu.backend, gpu.driver))?;
        }
    }
    let (gpu, wrong_arithmetic, tuned) = plan.gpu.open_checked()?;
    let reports = check_kernels(&gpu)?;
    let failed: Vec<&CaseReport> = reports.iter().filter(|r| !r.passed()).collect();
    let ceilings = Ceilings::measure(&gpu)?;
    let mine = RankResult {
        host: host(),
        gpu: gpu.summary().clone(),
        tier: gpu.tier().to_string(),
        kernel_cases: reports.len(),
        kernel_failures: failed.len(),
    };
    let all: Vec<RankResult> = ranks.gather(Ok(mine)).wait()?;
    if plan.json {
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "gpus": gpus,
            "chosen": gpu.summary(),
            "limits": gpu.limits(),
            "tier": gpu.tier(),
            "tuning": gpu.tuning(),
            "wrong_tiles": tuned.wrong,
            "arithmetic": gpu.arithmetic(),
            "wrong_on_gpu": tuned.wrong_on_gpu,
            "wrong_arithmetic": wrong_arithmetic,
            "ceilings": ceilings,
            "kernel_cases": reports.len(),
            "kernel_failures": failed,
            "kernels": plan.kernels.then_some(&reports),
            "ranks": (!ranks.is_alone()).then_some(&all),
        });
        print(format!("{report:#}"))?;
    } else {
        let other = if gpus.len() > 1 { "; --gpu chooses another" } else { "" };
        print(format!("GPU {} is used{other}", gpu.summary().index))?;
        print_variants(&gpu, &tuned, wrong_arithmetic.as_ref())?;
        print(format!(
            "measured: {:.1} GFLOP/s multiply-add, {:.1} GB/s, {:.0} µs per launch, {:.0} µs per submit",
            ceilings.gflops, ceilings.gigabytes_per_second, ceilings.launch_us, ceilings.submit_us
        ))?;
        for r in reports.iter().filter(|r| plan.kernels || !r.passed()) {
            let verdict = if r.passed() { "ok" } else { "WRONG" };
            print(format!("{:<28} {:<40} {:>9.1e}  {verdict}", r.kernel, r.shape, r.error))?;
        }
        let passed = reports.len() - failed.len();
        print(format!("kernels: {passed} of {} cases agree with the f64 reference", reports.len()))?;
        if !ranks.is_alone() {
            for (rank, of) in all.iter().enumerate() {
                print(format!("rank {rank:<4} {of}"))?;
            }
        }
    }
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(Error::SelfCheck(format!(
            "{} of {} kernel cases are wrong on this GPU, the first is {} ({}): update the driver or choose another --gpu",
            failed.len(),
            reports.len(),
            first.kernel,
            first.shape
        ))),
    }
}

/// Runs every kernel's test cases.
fn check_kernels(gpu: &Gpu) -> Result<Vec<CaseReport>> {
    // A copy of the tuning, so that no tiles are measured for the shapes of the test cases.
    let gpu = gpu.with_tuning(gpu.tuning());
    let (cases, mut console) = (all_cases(), Console::new());
    let check = |(done, case): (usize, &Case)| {
        console.progress("testing kernels", done, cases.len());
        case.check(&gpu).wait()
    };
    let reports = cases.iter().enumerate().map(check).collect();
    console.progress("testing kernels", cases.len(), cases.len());
    reports
}

/// Prints the limits of the GPU that is used, and the kernel variants chosen for it.
fn print_variants(gpu: &Gpu, tuned: &Tuned, wrong_arithmetic: Option<&Arithmetic>) -> Result<()> {
    let mib = |bytes: u64| bytes >> 20;
    let limits = gpu.limits();
    print(format!(
        "maximum storage binding {} MiB, maximum buffer {} MiB",
        mib(limits.binding),
        mib(limits.buffer)
    ))?;
    print(format!("tier {}", gpu.tier()))?;
    match gpu.tuning().products {
        Products::Staged(StagedProducts { chosen, .. }) if chosen.is_empty() => {
            print("matrix products: default tiles by shape, until a run measures its own")?;
        }
        Products::Staged(StagedProducts { chosen, .. }) => {
            for ChosenTile { class, tile } in chosen {
                print(format!("matrix products, {class}: {tile}"))?;
            }
        }
        Products::Unrolled(UnrolledTiles { few_rows, rows, columns }) => {
            for (what, tile) in [("rows", rows), ("few rows", few_rows), ("columns", columns)] {
                print(format!("matrix products, {what}: {tile}"))?;
            }
        }
    }
    print(format!("matrix products with f16 weights: {}", gpu.arithmetic()))?;
    let tiles = tuned.wrong.iter().cloned();
    let on_gpu = tuned.wrong_on_gpu.iter().map(|case| format!("the kernels for GPUs, in {case}"));
    for what in tiles.chain(on_gpu).chain(wrong_arithmetic.map(Arithmetic::to_string)) {
        print(format!("not used, because its results are WRONG: {what}"))?;
    }
    Ok(())
}
