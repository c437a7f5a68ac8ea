//! Cases: activations, plain and gated.

use super::{Case, Input, gradients, twice};
use crate::ops::{Activation, activation, gated_activation, residual_add};
use crate::reference;

/// Every activation.
pub(super) const ACTIVATIONS: [Activation; 4] =
    [Activation::Silu, Activation::GeluTanh, Activation::Gelu, Activation::ReluSquared];

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // N, F and the scale of x; from 1,024 columns there are several workgroups per row. Large gates make exp overflow.
    let shapes = [(1, 1, 1.0), (5, 7, 1.0), (63, 64, 3.0), (259, 20, 1.0), (3, 1028, 40.0), (2, 2053, 1.0)];
    for (kind, (n, f, scale)) in ACTIVATIONS.into_iter().flat_map(|kind| shapes.map(|shape| (kind, shape))) {
        let shape = format!("N {n} F {f} {kind:?}");
        for gated in [false, true] {
            let cols = if gated { 2 * f } else { f };
            let inputs = move || {
                let x = Input::normal(1, n, cols, scale).live(0).watched();
                vec![x, Input::normal(2, n, f, 1.0).live(0)]
            };
            let record = if gated { gated_activation } else { activation };
            let halves = move |x: &[f64]| [0, f].map(|first| super::columns(x, cols, first..first + f));
            out.push(Case::new(
                if gated { "gated_activation_forward" } else { "activation_forward" },
                &shape,
                inputs(),
                move |r, t| Ok(vec![record(r, t[0], kind)?]),
                move |v| match gated {
                    true => {
                        let [gate, up] = halves(&v[0]);
                        vec![reference::gated_activation_forward(&gate, &up, kind)]
                    }
                    false => vec![reference::activation_forward(&v[0], kind)],
                },
            ));
            // Recorded twice, so that the second gradient is added to the first.
            out.push(Case::new(
                if gated { "gated_activation_backward" } else { "activation_backward" },
                &shape,
                inputs(),
                move |r, t| {
                    let (y, z) = (record(r, t[0], kind)?, record(r, t[0], kind)?);
                    let sum = residual_add(r, y, z)?;
                    r.backward(&[(sum, t[1])])?;
                    Ok(gradients(r, &t[..1]))
                },
                move |v| match gated {
                    true => {
                        let [gate, up] = halves(&v[0]);
                        let (dgate, dup) = reference::gated_activation_backward(&gate, &up, kind, &v[1]);
                        vec![twice(&super::beside(&[(&dgate, f), (&dup, f)]))]
                    }
                    false => vec![twice(&reference::activation_backward(&v[0], kind, &v[1]))],
                },
            ));
        }
    }
    out
}
