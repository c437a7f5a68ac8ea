//! `oaif doctor` in a browser tab, and the kernel sources for the browser's compiler.

use std::collections::HashSet;

use oaif::unstable::gpu::{
    Candidates, DeviceKind, Gpu, GpuOptions, Limits, ProductTile, Products, StagedProducts, StagedTile, Tier,
    Tuning, UnrolledTiles, shader,
};
use oaif::unstable::ops::all_cases;
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::js_error;

/// Checks every kernel against its f64 reference. Returns, as JSON, how many agree and a line for each that does not.
#[wasm_bindgen]
pub async fn check_kernels() -> Result<String, JsValue> {
    let options = GpuOptions::default().tier(Tier::Portable);
    let gpu = Gpu::open(&options).await.map_err(js_error)?;
    let (mut agree, mut wrong) = (0, Vec::new());
    for case in all_cases() {
        match case.check(&gpu).await {
            Ok(report) if report.passed() => agree += 1,
            Ok(report) => wrong.push(format!("{} {}: {:.1e}", report.kernel, report.shape, report.error)),
            Err(error) => wrong.push(format!("{} {}: {error}", case.kernel, case.shape)),
        }
    }
    let limits = gpu.limits();
    let report =
        json!({"gpu": gpu.summary().name, "agree": agree, "wrong": wrong, "binding": limits.binding});
    Ok(report.to_string())
}

/// The source of every portable kernel, in every variant that any case uses with any tuning, as JSON.
#[wasm_bindgen]
pub fn kernel_sources() -> Result<String, JsValue> {
    let gpu = Gpu::without_device(Limits::default());
    let cases = all_cases();
    let (mut keys, mut sources) = (HashSet::new(), Vec::new());
    for tuning in tunings() {
        gpu.set_tuning(tuning);
        for case in &cases {
            let (recorder, _, _) = case.recording(&gpu).map_err(js_error)?;
            for key in recorder.kernels() {
                if keys.insert(key.clone()) {
                    let constants = format!("{:?}", key.constants);
                    let source = shader::assemble(key).map_err(js_error)?;
                    sources.push(json!({"name": key.name, "constants": constants, "wgsl": source}));
                }
            }
        }
    }
    Ok(json!(sources).to_string())
}

/// All tunings without subgroups: each tile wherever a product supports it, with fused and with separate blocks.
fn tunings() -> Vec<Tuning> {
    let all = Candidates::unrolled(None);
    let mut unrolled = Vec::new();
    for &few_rows in &all.few_rows {
        for &rows in &all.rows {
            let of_columns = all.columns.iter().map(|&columns| UnrolledTiles { few_rows, rows, columns });
            unrolled.extend(of_columns.map(Products::Unrolled));
        }
    }
    let tiles = StagedTile::ALL.into_iter().map(ProductTile::Staged).chain([ProductTile::Matvec]);
    let staged = tiles.map(|tile| Products::Staged(StagedProducts::all_in(tile)));
    let of = |kind, products| Tuning { products, ..Tuning::untuned(None, kind) };
    let tuned = unrolled
        .into_iter()
        .map(|products| of(DeviceKind::Processor, products))
        .chain(staged.map(|products| of(DeviceKind::Gpu, products)))
        .chain([DeviceKind::Processor, DeviceKind::Gpu].map(|kind| Tuning::untuned(None, kind)));
    tuned
        .flat_map(|tuning| [true, false].map(|fused_blocks| Tuning { fused_blocks, ..tuning.clone() }))
        .collect()
}
