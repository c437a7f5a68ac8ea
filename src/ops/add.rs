//! Residual adds.

use super::accumulate;
use super::case::{Case, Input};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Groups, Launch, Recorder, Tensor, Work};
use crate::reference;

/// y = a + b, all (N, C).
pub fn residual_add(r: &mut Recorder, a: Tensor, b: Tensor) -> Result<Tensor> {
    assert_eq!((a.rows, a.cols), (b.rows, b.cols), "residual_add");
    let y = r.tensor("residual_add", a.rows, a.cols);
    launch(r, &[a, b], y, 0);
    r.rule(&[y], move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        // `b` takes its copy first: `a` may take over `dy` itself, to which others then add.
        if let Some(db) = r.gradient_target(b) {
            launch(r, &[dy], db.tensor, accumulate(db));
        }
        pass_gradient(r, a, dy)
    });
    Ok(y)
}

/// Passes the gradient `dy`, which nothing else reads any more, on to `x` unchanged.
pub(super) fn pass_gradient(r: &mut Recorder, x: Tensor, dy: Tensor) -> Result<()> {
    if !r.adopt_gradient(x, dy)
        && let Some(dx) = r.gradient_target(x)
    {
        launch(r, &[dy], dx.tensor, accumulate(dx));
    }
    Ok(())
}

fn launch(r: &mut Recorder, terms: &[Tensor], y: Tensor, add: u32) {
    let two = (terms.len() == 2) as u32;
    let reads = terms.iter().map(|t| (*t, Access::Read));
    r.launch(Launch {
        kernel: KernelKey { name: "residual_add", constants: vec![("TWO", two), ("ADD", add)] },
        params: vec![y.rows.into(), y.cols.into()],
        args: reads.chain([(y, Access::Write)]).collect(),
        groups: Groups::over(y.rows, 4),
        work: Work { flops: y.cols as f64, bytes: 12.0 * y.cols as f64 },
    });
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for (n, c) in [(1, 1), (5, 7), (63, 65), (2048, 64)] {
        let shape = format!("N {n} C {c}");
        let inputs = move || {
            let input = |seed| Input::normal(seed, n, c, 1.0).live(0);
            vec![input(1).watched(), input(2).watched(), input(3)]
        };
        out.push(Case::new(
            "residual_add",
            &shape,
            inputs(),
            |r, t| Ok(vec![residual_add(r, t[0], t[1])?]),
            |v| vec![reference::residual_add(&v[0], &v[1])],
        ));
        out.push(Case::new(
            "residual_add_backward",
            &shape,
            inputs(),
            |r, t| {
                let y = residual_add(r, t[0], t[1])?;
                let z = residual_add(r, y, t[0])?;
                r.backward(&[(z, t[2])])?;
                Ok([t[0], t[1]].iter().filter_map(|t| r.gradient(*t)).collect())
            },
            |v| vec![reference::residual_add(&v[2], &v[2]), v[2].clone()],
        ));
    }
    out
}
