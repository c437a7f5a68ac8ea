//! Residual adds.

use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Accumulate, Groups, Launch, Recorder, Tensor, Word, Work, read, write};

/// y = a + b, all (N, C).
pub fn residual_add(r: &mut Recorder, a: Tensor, b: Tensor) -> Result<Tensor> {
    scaled_residual_add(r, a, b, 1.0)
}

/// y = a + scale · b, all (N, C).
pub fn scaled_residual_add(r: &mut Recorder, a: Tensor, b: Tensor, scale: f32) -> Result<Tensor> {
    assert_eq!((a.rows, a.cols), (b.rows, b.cols), "residual_add");
    let y = r.tensor("residual_add", a.rows, a.cols);
    launch(r, a, Some(b), y, scale, false);
    r.rule(&[y], move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        // The gradient of `b` is written first: `a` may adopt `dy` itself, to which later rules then add.
        if let Some(db) = r.gradient_target(b) {
            launch(r, dy, None, db.tensor, scale, db.accumulate == Accumulate::Add);
        }
        pass_gradient(r, a, dy)
    });
    Ok(y)
}

/// Passes the gradient `dy` on to `x` unchanged. Nothing else may read `dy` afterwards.
pub(super) fn pass_gradient(r: &mut Recorder, x: Tensor, dy: Tensor) -> Result<()> {
    if !r.adopt_gradient(x, dy)
        && let Some(dx) = r.gradient_target(x)
    {
        launch(r, dy, None, dx.tensor, 1.0, dx.accumulate == Accumulate::Add);
    }
    Ok(())
}

constants! {
    struct ResidualAdd {
        two: bool,
        scale: bool,
        add: bool,
    }
}

fn launch(r: &mut Recorder, a: Tensor, b: Option<Tensor>, y: Tensor, scale: f32, add: bool) {
    let mut args = vec![read("a", a)];
    args.extend(b.map(|b| read("b", b)));
    args.push(write("y", y));
    let mut params: Vec<(&str, Word)> = vec![("rows", y.rows.into()), ("cols", y.cols.into())];
    params.extend((scale != 1.0).then_some(("scale", scale.into())));
    r.launch(Launch {
        kernel: "residual_add",
        constants: ResidualAdd { two: b.is_some(), scale: scale != 1.0, add }.list(),
        params,
        args,
        groups: Groups::over(y.rows, 4),
        work: Work { flops: y.cols as f64, bytes: 12.0 * y.cols as f64 },
    });
}
