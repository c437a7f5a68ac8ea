//! Cases: weights that track other weights.

use super::{Case, Input};
use crate::ops::mix;
use crate::reference;

pub(super) fn cases() -> Vec<Case> {
    let case = |(rows, cols, amount): (usize, usize, f32)| {
        Case::new(
            "mix",
            format!("({rows}, {cols}) amount {amount}"),
            vec![Input::normal(1, rows, cols, 1.0), Input::normal(2, rows, cols, 1.0)],
            move |r, t| {
                mix(r, t[0], t[1], amount);
                Ok(vec![t[1]])
            },
            move |v| vec![reference::mix(&v[0], &v[1], amount.into())],
        )
    };
    [(1, 1, 0.6), (61, 67, 0.6), (7, 13, 1.0), (512, 512, 0.05)].map(case).into()
}
