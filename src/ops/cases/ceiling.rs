//! Cases: the multiply-add ceiling.

use super::{Case, Input};
use crate::ops::ceiling::multiply_add;

pub(super) fn cases() -> Vec<Case> {
    let case = |n: usize| {
        let rounds = 20;
        let expected = move |x: &f64| {
            let chain = |j: usize| (0..rounds).fold(*x, |c, _| 0.75 * c + j as f64 / 8.0);
            (0..8).map(chain).sum::<f64>()
        };
        Case::new(
            "multiply_add_ceiling",
            format!("N {n}"),
            vec![Input::normal(1, n, 1, 1.0)],
            move |r, t| Ok(vec![multiply_add(r, t[0], rounds)]),
            move |v| vec![v[0].iter().map(expected).collect()],
        )
    };
    [1, 65].map(case).into()
}
