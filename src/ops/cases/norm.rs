//! Cases: normalisation.

use super::{Case, Input};
use crate::ops::{Norm, norm, residual_add};
use crate::reference;

pub(super) fn cases() -> Vec<Case> {
    // With one column the gradient is what eps leaves of it.
    const EPS: f32 = 1e-3;
    let mut out = Vec::new();
    // From 512 columns on there is a workgroup a row; 259 rows and more are summed in slices.
    for (n, c) in [(1, 1), (5, 7), (63, 65), (65, 64), (3, 512), (259, 521), (1, 2053), (2048, 64)] {
        let shape = format!("N {n} C {c}");
        let inputs = move || {
            let x = Input::normal(1, n, c, 1.0).live(0).watched();
            vec![x, Input::normal(2, 1, c, 1.0).watched(), Input::normal(3, n, c, 1.0).live(0)]
        };
        out.push(Case::new(
            "norm_forward",
            &shape,
            inputs(),
            |r, t| Ok(vec![norm(r, t[0], &Norm::rms(t[1], EPS))?]),
            |v| vec![reference::rmsnorm_forward(&v[0], &v[1], EPS as f64).0],
        ));
        // Twice over, so that the second gradients are added to the first.
        out.push(Case::new(
            "norm_backward",
            &shape,
            inputs(),
            |r, t| {
                let y = norm(r, t[0], &Norm::rms(t[1], EPS))?;
                let z = norm(r, t[0], &Norm::rms(t[1], EPS))?;
                let sum = residual_add(r, y, z)?;
                r.backward(&[(sum, t[2])])?;
                Ok([t[0], t[1]].iter().filter_map(|t| r.gradient(*t)).collect())
            },
            |v| {
                let (_, inv) = reference::rmsnorm_forward(&v[0], &v[1], EPS as f64);
                let (dx, dw) = reference::rmsnorm_backward(&v[0], &v[1], &inv, &v[2]);
                [dx, dw].map(|d| d.iter().map(|d| 2.0 * d).collect()).into()
            },
        ));
    }
    out
}
