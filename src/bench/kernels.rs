//! Times every kernel individually: the largest case of each in the table that the tests use, and matrix products with
//! shapes from models.

use std::collections::BTreeMap;

use super::{Case, Facts, Recipe};
use crate::Wait;
use crate::error::Result;
use crate::gpu::{Gpu, PlanOptions, Recorder, Tensor, Work};
use crate::ops::{self, Input};
use crate::reference;

/// (N, I, O): a large square, the down and up projections of small models, a head's product in decoding.
const PRODUCTS: [(usize, usize, usize); 4] =
    [(1024, 1024, 1024), (2048, 64, 512), (2048, 192, 512), (1, 192, 4096)];

/// The cases of the kernels. The shape of a product is part of its recipe's name.
///
/// # Errors
/// Errors of the engine.
pub fn kernels(gpu: &Gpu) -> Result<Vec<Recipe<Gpu>>> {
    let mut all = largest(&gpu.measuring())?;
    all.extend(PRODUCTS.map(product));
    let recipe = |(case, work): (ops::Case, Work)| {
        let name = format!("{} ({})", case.kernel, case.shape);
        Recipe::new("kernels", name, move |gpu: &Gpu| timed(gpu, &case, work))
    };
    Ok(all.into_iter().map(recipe).collect())
}

fn timed(gpu: &Gpu, case: &ops::Case, work: Work) -> Result<Case> {
    let (plan, _, live) = case.plan(gpu, PlanOptions::default()).wait()?;
    let mut facts = Facts::bare("kernels", case.kernel, &case.shape);
    (facts.flops, facts.bytes) = (Some(work.flops), Some(work.bytes));
    // All repetitions in as few submits as the time cap allows, read back once.
    Case::new(facts, move |times| plan.submit(&live, times)?.outputs().wait().map(drop))?.repeated()
}

/// Returns for each kernel the case with the most work.
fn largest(measuring: &Gpu) -> Result<Vec<(ops::Case, Work)>> {
    let mut largest: BTreeMap<&str, (ops::Case, Work)> = BTreeMap::new();
    for case in ops::all_cases() {
        let (recorder, _, live) = case.recording(measuring)?;
        let work = recorder.work(&live.extents);
        let known = largest.get(case.kernel).map_or(-1.0, |(_, w)| w.flops + w.bytes);
        if work.flops + work.bytes > known {
            largest.insert(case.kernel, (case, work));
        }
    }
    Ok(largest.into_values().collect())
}

fn product((n, i, o): (usize, usize, usize)) -> (ops::Case, Work) {
    let inputs = vec![Input::normal(1, n, i, 1.0), Input::normal(2, o, i, 1.0)];
    let case = ops::Case::new(
        "product",
        format!("N {n} I {i} O {o}"),
        inputs,
        |r: &mut Recorder, t: &[Tensor]| Ok(vec![ops::linear(r, t[0], &t[1].into(), None)?]),
        move |v| vec![reference::linear_forward(&v[0], &v[1], n, i, o)],
    );
    let elements = (n * i + i * o + n * o) as f64;
    (case, Work { flops: 2.0 * (n * i * o) as f64, bytes: 4.0 * elements })
}
