//! `oaif doctor` in a tab.

use oaif::unstable::gpu::{Gpu, GpuOptions, Tier};
use oaif::unstable::ops::all_cases;
use wasm_bindgen::prelude::*;

use crate::told;

/// Checks every kernel against its f64 reference: how many agree, and a line for each that does not, as JSON.
#[wasm_bindgen]
pub async fn check_kernels() -> Result<String, JsValue> {
    let options = GpuOptions::default().tier(Tier::Portable);
    let gpu = Gpu::open(&options).await.map_err(told)?;
    let (mut agree, mut wrong) = (0, Vec::new());
    for case in all_cases() {
        match case.check(&gpu).await {
            Ok(report) if report.passed() => agree += 1,
            Ok(report) => wrong.push(format!("{} {}: {:.1e}", report.kernel, report.shape, report.error)),
            Err(error) => wrong.push(format!("{} {}: {error}", case.kernel, case.shape)),
        }
    }
    let limits = gpu.limits();
    let report = serde_json::json!({"gpu": gpu.summary().name, "agree": agree, "wrong": wrong, "binding": limits.binding});
    Ok(report.to_string())
}
