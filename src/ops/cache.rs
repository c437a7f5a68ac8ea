//! Writing rows into a KV cache, and moving the sequences that are being generated on by one token.

use super::case::{Case, Input};
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Groups, Launch, Recorder, Tensor, Work};

/// `y[rows[n]] = x[n]`, except where `rows[n]` is `u32::MAX`. No gradient.
///   x (N, C)  rows (N, 1)  ->  y (M, C)
pub fn scatter_rows(r: &mut Recorder, x: Tensor, rows: Tensor, y: Tensor) {
    assert_eq!((x.rows, x.cols), (rows.rows, y.cols), "scatter_rows");
    r.launch(Launch {
        kernel: KernelKey { name: "scatter_rows", constants: vec![] },
        params: vec![x.rows.into(), x.cols.into()],
        args: vec![(x, Access::Read), (rows, Access::Read), (y, Access::Write)],
        groups: Groups::over(x.rows, 4),
        work: Work { flops: 0.0, bytes: 8.0 * x.cols as f64 },
    });
}

/// The state of the slots that generate, all with S rows.
#[derive(Clone, Copy)]
pub struct DecodeSlots {
    /// The token that each slot reads next, (S, 1).
    pub tokens: Tensor,
    /// Its position, (S, 1).
    pub positions: Tensor,
    /// The cache row that it is written to, (S, 1).
    pub cache_rows: Tensor,
    /// The cache rows that it sees, (S, 4).
    pub spans: Tensor,
    /// (active, generated so far, limit, 0), (S, 4).
    pub slots: Tensor,
    /// What was generated, (S, LEN).
    pub history: Tensor,
}

/// Gives each active slot its sampled token: notes it, stops at `eos` (E, 1) or the limit, else moves on.
pub fn decode_advance(r: &mut Recorder, sampled: Tensor, eos: Tensor, s: DecodeSlots) {
    r.launch(Launch {
        kernel: KernelKey { name: "decode_advance", constants: vec![] },
        params: vec![sampled.rows.into(), eos.rows.into(), s.history.cols.into()],
        args: vec![
            (sampled, Access::Read),
            (eos, Access::Read),
            (s.tokens, Access::Write),
            (s.positions, Access::Write),
            (s.cache_rows, Access::Write),
            (s.spans, Access::Write),
            (s.slots, Access::Write),
            (s.history, Access::Write),
        ],
        groups: Groups::over(sampled.rows, 64),
        work: Work { flops: 0.0, bytes: 64.0 },
    });
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for (n, c) in [(1, 1), (5, 7), (67, 12), (2048, 32)] {
        // Rows are written in reverse; every third is left out.
        let rows: Vec<u32> =
            (0..n as u32).map(|i| if i % 3 == 2 { u32::MAX } else { n as u32 - 1 - i }).collect();
        let kept = rows.clone();
        let x = Input::normal(1, n, c, 1.0).live(0);
        out.push(Case::new(
            "scatter_rows",
            format!("N {n} C {c}"),
            vec![x, Input::u32(rows, n, 1).live(0), Input::f32(vec![0.5; n * c], n, c)],
            |r, t| {
                scatter_rows(r, t[0], t[1], t[2]);
                Ok(vec![t[2]])
            },
            move |v| {
                let mut y = v[2].clone();
                for (i, row) in kept.iter().enumerate().filter(|(_, row)| **row != u32::MAX) {
                    y[*row as usize * c..][..c].copy_from_slice(&v[0][i * c..][..c]);
                }
                vec![y]
            },
        ));
    }
    // Four slots: one goes on, one meets the end-of-sequence token 9, one its limit, one is inactive.
    let inputs = vec![
        Input::u32(vec![5, 9, 6, 7], 4, 1).live(0),
        Input::u32(vec![8, 9], 2, 1),
        Input::u32(vec![1, 2, 3, 4], 4, 1),
        Input::u32(vec![10, 11, 12, 13], 4, 1),
        Input::u32(vec![20, 30, 40, 50], 4, 1),
        Input::u32(vec![0, 3, 20, 21, 3, 6, 30, 31, 6, 9, 40, 41, 0, 0, 0, 0], 4, 4),
        Input::u32(vec![1, 0, 3, 0, 1, 1, 3, 0, 1, 2, 3, 0, 0, 2, 3, 0], 4, 4),
        Input::u32(vec![0; 12], 4, 3),
    ];
    out.push(Case::new(
        "decode_advance",
        "S 4",
        inputs,
        |r, t| {
            let [tokens, positions, cache_rows, spans, slots, history] = [t[2], t[3], t[4], t[5], t[6], t[7]];
            decode_advance(
                r,
                t[0],
                t[1],
                DecodeSlots { tokens, positions, cache_rows, spans, slots, history },
            );
            Ok(t[2..].to_vec())
        },
        |_| {
            let gone = u32::MAX as f64;
            vec![
                vec![5., 2., 3., 4.],
                vec![11., 11., 12., 13.],
                vec![21., gone, gone, 50.],
                vec![0., 3., 20., 22., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0.],
                vec![1., 1., 3., 0., 0., 2., 3., 0., 0., 3., 3., 0., 0., 2., 3., 0.],
                vec![5., 0., 0., 0., 9., 0., 0., 0., 6., 0., 0., 0.],
            ]
        },
    ));
    out
}
