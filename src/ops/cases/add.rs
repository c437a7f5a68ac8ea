//! Cases: residual adds.

use super::{Case, Input};
use crate::ops::{residual_add, scaled_residual_add};
use crate::reference;

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
        // As in Granite; the gradient of b is added to twice.
        let scaled = |x: &[f64]| x.iter().map(|x| SCALE as f64 * x).collect::<Vec<_>>();
        out.push(Case::new(
            "scaled_residual_add",
            &shape,
            inputs(),
            |r, t| Ok(vec![scaled_residual_add(r, t[0], t[1], SCALE)?]),
            move |v| vec![reference::residual_add(&v[0], &scaled(&v[1]))],
        ));
        out.push(Case::new(
            "scaled_residual_add_backward",
            &shape,
            inputs(),
            |r, t| {
                let y = scaled_residual_add(r, t[0], t[1], SCALE)?;
                let z = scaled_residual_add(r, y, t[1], SCALE)?;
                r.backward(&[(z, t[2])])?;
                Ok([t[0], t[1]].iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| vec![v[2].clone(), reference::residual_add(&scaled(&v[2]), &scaled(&v[2]))],
        ));
    }
    out
}

const SCALE: f32 = 0.22;
