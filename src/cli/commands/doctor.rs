//! `oaif doctor`.

use serde_json::json;

use crate::Wait;
use crate::bench::Ceilings;
use crate::cli::args::DoctorPlan;
use crate::error::{Error, Result};
use crate::gpu::{Arithmetic, ChosenTile, Products, StagedProducts, UnrolledTiles, list_gpus};
use crate::ops::{CaseReport, all_cases};

pub fn run(plan: DoctorPlan) -> Result<()> {
    let gpus = list_gpus().wait();
    let (gpu, wrong_arithmetic, tuned) = plan.gpu.open_checked()?;
    // The cases' shapes are nobody's: no tiles are measured for them.
    let checked = gpu.with_tuning(gpu.tuning());
    let reports = all_cases().iter().map(|case| case.check(&checked).wait()).collect::<Result<Vec<_>>>()?;
    let failed: Vec<&CaseReport> = reports.iter().filter(|r| !r.passed()).collect();
    let ceilings = Ceilings::measure(&gpu)?;
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
        });
        crate::cli::print(format!("{report:#}"))?;
    } else {
        crate::cli::print(format!("oaif {}", env!("CARGO_PKG_VERSION")))?;
        for a in &gpus {
            let mark = if a.index == gpu.summary().index { '*' } else { ' ' };
            crate::cli::print(format!(
                "{mark} {} {} ({}, {}, {})",
                a.index, a.name, a.kind, a.backend, a.driver
            ))?;
        }
        let limits = gpu.limits();
        let mib = |bytes: u64| bytes >> 20;
        crate::cli::print(format!(
            "largest binding {} MiB, buffer {} MiB",
            mib(limits.binding),
            mib(limits.buffer)
        ))?;
        crate::cli::print(format!("tier {}", gpu.tier()))?;
        match gpu.tuning().products {
            Products::Staged(StagedProducts { chosen, .. }) if chosen.is_empty() => {
                crate::cli::print("products: tiles by shape, until a run measures its own".to_owned())?;
            }
            Products::Staged(StagedProducts { chosen, .. }) => {
                for ChosenTile { class, tile } in chosen {
                    crate::cli::print(format!("products {class}: {tile}"))?;
                }
            }
            Products::Unrolled(UnrolledTiles { few_rows, rows, columns }) => {
                for (what, tile) in [("rows", rows), ("few rows", few_rows), ("columns", columns)] {
                    crate::cli::print(format!("products of {what}: {tile}"))?;
                }
            }
        }
        crate::cli::print(format!("products with f16 matrices: {}", gpu.arithmetic()))?;
        let tiles = tuned.wrong.iter().cloned();
        let on_gpu = tuned.wrong_on_gpu.iter().map(|case| format!("the kernels for GPUs, in {case}"));
        for what in tiles.chain(on_gpu).chain(wrong_arithmetic.iter().map(Arithmetic::to_string)) {
            crate::cli::print(format!("never used, since its results are WRONG: {what}"))?;
        }
        crate::cli::print(format!(
            "measured: {:.1} GFLOP/s multiply-add, {:.1} GB/s, {:.0} µs a launch, {:.0} µs a submit",
            ceilings.gflops, ceilings.gigabytes_per_second, ceilings.launch_us, ceilings.submit_us
        ))?;
        let shown = |r: &&CaseReport| plan.kernels || !r.passed();
        for r in reports.iter().filter(shown) {
            let verdict = if r.passed() { "ok" } else { "WRONG" };
            crate::cli::print(format!("{:<28} {:<40} {:>9.1e}  {verdict}", r.kernel, r.shape, r.error))?;
        }
        let passed = reports.len() - failed.len();
        crate::cli::print(format!(
            "kernels: {passed} of {} cases agree with the f64 reference",
            reports.len()
        ))?;
    }
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(Error::SelfCheck(format!(
            "{} of {} kernel cases are wrong on this GPU, {} ({}) first: update the driver or choose another --gpu",
            failed.len(),
            reports.len(),
            first.kernel,
            first.shape
        ))),
    }
}
