//! The gated activation of the feed-forward layer.

use super::case::{Case, Input};
use super::{accumulate, elements};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Launch, Recorder, Tensor, Work};
use crate::reference;

/// y = gate σ(gate) up (Shazeer 2020, arXiv 2002.05202), all (N, F).
pub fn swiglu(r: &mut Recorder, gate: Tensor, up: Tensor) -> Result<Tensor> {
    assert_eq!((gate.rows, gate.cols), (up.rows, up.cols), "swiglu");
    assert_ne!(gate, up, "swiglu: one launch writes both gradients");
    let y = r.tensor("swiglu", gate.rows, gate.cols);
    let cols = y.cols as f64;
    r.launch(Launch {
        kernel: KernelKey { name: "swiglu_forward", constants: vec![] },
        params: vec![y.rows.into(), y.cols.into()],
        args: vec![(gate, Access::Read), (up, Access::Read), (y, Access::Write)],
        groups: elements(y.rows, y.cols),
        work: Work { flops: 6.0 * cols, bytes: 12.0 * cols },
    });
    r.rule(&[y], move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        let targets = [gate, up].map(|t| r.gradient_target(t));
        let [to_gate, to_up] = targets.map(|t| t.is_some() as u32);
        let [add_gate, add_up] = targets.map(|t| t.map_or(0, accumulate));
        let reads = [dy, gate, up].map(|t| (t, Access::Read));
        let writes = targets.into_iter().flatten().map(|t| (t.tensor, Access::Write));
        r.launch(Launch {
            kernel: KernelKey {
                name: "swiglu_backward",
                constants: vec![
                    ("TO_GATE", to_gate),
                    ("TO_UP", to_up),
                    ("ADD_GATE", add_gate),
                    ("ADD_UP", add_up),
                ],
            },
            params: vec![y.rows.into(), y.cols.into()],
            args: reads.into_iter().chain(writes).collect(),
            groups: elements(y.rows, y.cols),
            work: Work { flops: 12.0 * cols, bytes: 20.0 * cols },
        });
        Ok(())
    });
    Ok(y)
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // Gates of standard deviation 30 reach where exp overflows.
    for (n, f, scale) in [(1, 1, 1.0), (5, 7, 30.0), (63, 65, 1.0), (3, 2053, 1.0), (2048, 172, 1.0)] {
        let shape = format!("N {n} F {f}");
        let gate = move || Input::normal(1, n, f, scale).live(0);
        let up = move || Input::normal(2, n, f, 1.0).live(0);
        let dy = move || Input::normal(3, n, f, 1.0).live(0);
        out.push(Case::new(
            "swiglu_forward",
            &shape,
            vec![gate(), up()],
            |r, t| Ok(vec![swiglu(r, t[0], t[1])?]),
            |v| vec![reference::swiglu_forward(&v[0], &v[1])],
        ));
        for (both, inputs) in [
            ("both", vec![gate().watched(), up().watched(), dy()]),
            ("gate alone", vec![gate().watched(), up(), dy()]),
            ("up alone", vec![gate(), up().watched(), dy()]),
        ] {
            // Twice over, so that the second gradients are added to the first.
            out.push(Case::new(
                "swiglu_backward",
                format!("{shape} {both}"),
                inputs,
                |r, t| {
                    let y = swiglu(r, t[0], t[1])?;
                    let z = swiglu(r, t[0], t[1])?;
                    let sum = super::residual_add(r, y, z)?;
                    r.backward(&[(sum, t[2])])?;
                    Ok([t[0], t[1]].iter().filter_map(|t| r.gradient(*t)).collect())
                },
                move |v| {
                    let (dgate, dup) = reference::swiglu_backward(&v[0], &v[1], &v[2]);
                    let wanted = [(dgate, both != "up alone"), (dup, both != "gate alone")];
                    let twice = |d: Vec<f64>| d.iter().map(|d| 2.0 * d).collect();
                    wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(d, _)| twice(d)).collect()
                },
            ));
        }
    }
    out
}
