//! Single products, to check and to time.

use std::time::{Duration, Instant};

use crate::Wait;
use crate::error::Result;
use crate::gpu::{Format, Gpu, PlanOptions, ProductForm, Recorder, Tensor};
use crate::ops::{Case, Input, product};
use crate::reference;

/// A product of this form with (rows, cols) results of `inner` elements each; `format` is that of the right operand.
pub(super) fn product_case(
    form: ProductForm,
    rows: usize,
    cols: usize,
    inner: usize,
    format: Format,
) -> Case {
    let (kernel, left, right) = match form {
        ProductForm::AlongBoth => ("product", (rows, inner), (cols, inner)),
        ProductForm::AlongLeft => ("product_backward", (rows, inner), (inner, cols)),
        ProductForm::AlongNeither => ("product_backward", (inner, rows), (inner, cols)),
    };
    let inputs =
        vec![Input::weights(1, left.0, left.1, 1.0), Input::weights(2, right.0, right.1, 1.0).stored(format)];
    Case::new(
        kernel,
        format!("{rows} x {cols}, sums of {inner}"),
        inputs,
        move |r: &mut Recorder, t: &[Tensor]| Ok(vec![product(r, form, t[0], t[1])]),
        move |v| {
            vec![match form {
                ProductForm::AlongBoth => reference::linear_forward(&v[0], &v[1], rows, inner, cols),
                ProductForm::AlongLeft => reference::linear_backward_input(&v[0], &v[1], rows, cols, inner),
                ProductForm::AlongNeither => {
                    reference::linear_backward_weight(&v[0], &v[1], inner, cols, rows)
                }
            }]
        },
    )
}

/// Returns the seconds per launch of the case's product: the minimum of three runs of at least this duration.
pub(super) fn seconds(gpu: &Gpu, case: &Case, at_least: Duration) -> Result<f64> {
    let (plan, _, live) = case.plan(gpu, PlanOptions::default()).wait()?;
    let run = |times: u32| -> Result<Duration> {
        let started = Instant::now();
        plan.submit(&live, times)?.outputs().wait()?;
        Ok(started.elapsed())
    };
    // The first run is slower: caches are cold, and clocks low.
    run(1)?;
    let mut times = 1;
    let mut least = run(times)?;
    while least < at_least {
        let aim = at_least.as_secs_f64() / least.as_secs_f64().max(1e-6);
        times *= (1.2 * aim).ceil().clamp(2.0, 100.0) as u32;
        least = run(times)?;
    }
    for _ in 0..2 {
        least = least.min(run(times)?);
    }
    Ok(least.as_secs_f64() / times as f64)
}
