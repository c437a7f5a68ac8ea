//! Cases: sums over segments of rows.

use super::{Case, Input};
use crate::ops::segment_sum;
use crate::reference;

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // The segments have these lengths, repeated; some are empty.
    for (s, lengths) in [
        (1, vec![1]),
        (1, vec![131]),
        (7, vec![3, 0, 7]),
        (63, vec![2, 5]),
        (130, vec![1, 0, 9]),
        (32, vec![64]),
    ] {
        let lengths: Vec<u32> = (0..s).map(|i| lengths[i % lengths.len()]).collect();
        let ends = lengths.iter().scan(0, |end, n| {
            *end += n;
            Some(*end)
        });
        let offsets: Vec<u32> = [0].into_iter().chain(ends).collect();
        let t = offsets[s] as usize;
        let shape = format!("T {t} S {s}");
        let inputs = || {
            vec![
                Input::normal(1, t, 1, 1.0).live(0).watched(),
                Input::u32(offsets.clone(), s + 1, 1).live(2),
                Input::normal(2, s, 1, 1.0).live(1),
            ]
        };
        let at = offsets.clone();
        out.push(Case::new(
            "segment_sum",
            &shape,
            inputs(),
            |r, t| Ok(vec![segment_sum(r, t[0], t[1], t[2].rows)?]),
            move |v| vec![reference::segment_sum(&v[0], &at)],
        ));
        let at = offsets.clone();
        out.push(Case::new(
            "segment_sum_backward",
            &shape,
            inputs(),
            // Recorded twice, so that the second gradient is added to the first.
            |r, t| {
                let y = segment_sum(r, t[0], t[1], t[2].rows)?;
                let z = segment_sum(r, t[0], t[1], t[2].rows)?;
                r.backward(&[(y, t[2]), (z, t[2])])?;
                Ok(r.gradient(t[0]).into_iter().collect())
            },
            move |v| {
                let dx = reference::segment_sum_backward(&v[2], &at);
                vec![reference::residual_add(&dx, &dx)]
            },
        ));
    }
    out
}
