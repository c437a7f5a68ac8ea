//! Cases: advancing sequences.

use super::{Case, Input};
use crate::ops::{DecodeSlots, decode_advance};

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // Four slots: one continues, one gets the end-of-sequence token 9, one reaches its limit, one is inactive.
    let inputs = vec![
        Input::u32(vec![5, 9, 6, 7], 4, 1).live(0),
        Input::u32(vec![8, 9], 2, 1),
        Input::u32(vec![1, 2, 3, 4], 4, 1),
        Input::u32(vec![10, 11, 12, 13], 4, 1),
        Input::u32(vec![0, 3, 20, 21, 3, 6, 30, 31, 6, 9, 40, 41, 0, 0, 0, 0], 4, 4),
        Input::u32(vec![1, 0, 3, 0, 1, 1, 3, 0, 1, 2, 3, 0, 0, 2, 3, 0], 4, 4),
        Input::u32(vec![0; 12], 4, 3),
    ];
    out.push(Case::new(
        "decode_advance",
        "S 4",
        inputs,
        |r, t| {
            let [tokens, positions, spans, slots, history] = [t[2], t[3], t[4], t[5], t[6]];
            decode_advance(r, t[0], t[1], DecodeSlots { tokens, positions, spans, slots, history });
            Ok(t[2..].to_vec())
        },
        |_| {
            vec![
                vec![5., 2., 3., 4.],
                vec![11., 11., 12., 13.],
                vec![0., 3., 20., 22., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0.],
                vec![1., 1., 3., 0., 0., 2., 3., 0., 0., 3., 3., 0., 0., 2., 3., 0.],
                vec![5., 0., 0., 0., 9., 0., 0., 0., 6., 0., 0., 0.],
            ]
        },
    ));
    out
}
