//! Cases: feed-forward blocks, with LoRA terms and 16-bit weights.

use super::{Case, Input};
use crate::gpu::{Format, Recorder, Tensor};
use crate::ops::{Activation, FeedForward, Linear, Lora, Norm, feed_forward};
use crate::reference;

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // N, C, F; low-rank terms of this rank on gate, up and down; scale of x; the weights' format. Gates reach where exp
    // overflows.
    let shapes = [
        (1, 1, 1, [0; 3], 1.0, Format::F32),
        (13, 7, 17, [0; 3], 1.0, Format::F32),
        (65, 64, 63, [0; 3], 1.0, Format::F32),
        (67, 36, 172, [4, 0, 4], 1.0, Format::F32),
        (33, 12, 20, [0, 3, 0], 1.0, Format::F32),
        (5, 8, 260, [4, 4, 8], 30.0, Format::F32),
        (2048, 64, 172, [0; 3], 1.0, Format::F32),
        (13, 12, 20, [0, 3, 0], 1.0, Format::F16),
        (65, 64, 72, [4, 4, 4], 1.0, Format::Bf16),
    ];
    for shape in shapes {
        out.extend(cases_of(shape));
    }
    out
}

/// A small block with LoRA terms.
pub(super) fn small_cases() -> Vec<Case> {
    cases_of((13, 12, 20, [0, 3, 0], 1.0, Format::F16))
}

type Shape = (usize, usize, usize, [usize; 3], f32, Format);

const EPS: f32 = 1e-3;

fn cases_of((n, c, f, ranks, scale, format): Shape) -> Vec<Case> {
    let mut out = Vec::new();
    {
        let shape = format!("N {n} C {c} F {f} R {ranks:?} {format:?}");
        let [rg, ru, rd] = ranks.map(|r: usize| r.max(1));
        let inputs = move || {
            let spread = scale / (c as f32).sqrt();
            vec![
                Input::normal(1, n, c, 1.0).live(0).watched(),
                Input::normal(2, 1, c, 1.0).watched(),
                Input::normal(3, 2 * f, c, spread).watched().stored(format),
                Input::normal(4, c, f, 1.0).watched().stored(format),
                Input::normal(5, n, c, 1.0).live(0),
                Input::normal(6, rg, c, 0.3).watched(),
                Input::normal(7, f, rg, 0.3).watched(),
                Input::normal(8, ru, c, 0.3).watched(),
                Input::normal(9, f, ru, 0.3).watched(),
                Input::normal(10, rd, f, 0.3).watched(),
                Input::normal(11, c, rd, 0.3).watched(),
            ]
        };
        let record = move |r: &mut Recorder, t: &[Tensor]| {
            let lora = |i: usize, first: usize, at: usize| {
                (ranks[i] > 0).then(|| (first, Lora { a: t[at], b: t[at + 1], scale: 0.5 }))
            };
            let of_up = lora(0, 0, 5).into_iter().chain(lora(1, f, 7)).collect();
            let block = FeedForward {
                norm: Some(Norm::rms(t[1], EPS)),
                up: Linear { lora: of_up, ..Linear::from(t[2]) },
                gated: true,
                activation: Activation::Silu,
                down: Linear { lora: lora(2, 0, 9).into_iter().collect(), ..Linear::from(t[3]) },
            };
            feed_forward(r, t[0], &block, Some(t[0]))
        };
        // The weights with their low-rank terms, and the block's parts.
        let merged =
            move |w: &[f64], a: &[f64], b: &[f64], rank: usize, rows: usize, cols: usize| -> Vec<f64> {
                let mut w = w.to_vec();
                for (o, i) in (0..rows).flat_map(|o| (0..cols).map(move |i| (o, i))) {
                    w[o * cols + i] +=
                        (0..rank).map(|k| 0.5 * b[o * rank + k] * a[k * cols + i]).sum::<f64>();
                }
                w
            };
        let whole = move |v: &[Vec<f64>]| {
            let gate = merged(&v[2][..f * c], &v[5], &v[6], ranks[0], f, c);
            let up = merged(&v[2][f * c..], &v[7], &v[8], ranks[1], f, c);
            let down = merged(&v[3], &v[9], &v[10], ranks[2], c, f);
            (gate, up, down)
        };
        out.push(Case::new(
            "feed_forward_forward",
            &shape,
            inputs(),
            move |r, t| Ok(vec![record(r, t)?]),
            move |v| {
                let (gate, up, down) = whole(v);
                let (normed, _) = reference::rmsnorm_forward(&v[0], &v[1], EPS as f64);
                let [g, u] = [&gate, &up].map(|w| reference::linear_forward(&normed, w, n, c, f));
                let inner = reference::swiglu_forward(&g, &u);
                let y = reference::linear_forward(&inner, &down, n, f, c);
                vec![reference::residual_add(&y, &v[0])]
            },
        ));
        out.push(Case::new(
            "feed_forward_backward",
            &shape,
            inputs(),
            move |r, t| {
                let y = record(r, t)?;
                r.backward(&[(y, t[4])])?;
                Ok([&t[..4], &t[5..]].concat().iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let (gate, up, down) = whole(v);
                let (normed, inv) = reference::rmsnorm_forward(&v[0], &v[1], EPS as f64);
                let [g, u] = [&gate, &up].map(|w| reference::linear_forward(&normed, w, n, c, f));
                let inner = reference::swiglu_forward(&g, &u);
                let dy = &v[4];
                let dinner = reference::linear_backward_input(dy, &down, n, f, c);
                let ddown = reference::linear_backward_weight(dy, &inner, n, f, c);
                let (dg, du) = reference::swiglu_backward(&g, &u, &dinner);
                let dgate = reference::linear_backward_weight(&dg, &normed, n, c, f);
                let dup = reference::linear_backward_weight(&du, &normed, n, c, f);
                let [a, b] =
                    [(&dg, &gate), (&du, &up)].map(|(d, w)| reference::linear_backward_input(d, w, n, c, f));
                let dnormed = reference::residual_add(&a, &b);
                let (dx, dgain) = reference::rmsnorm_backward(&v[0], &v[1], &inv, &dnormed);
                let mut out = vec![
                    reference::residual_add(&dx, dy),
                    dgain,
                    [dgate.clone(), dup.clone()].concat(),
                    ddown.clone(),
                ];
                // dA = scale Bᵀ dW, dB = scale dW Aᵀ.
                for (i, (dw, at, rows, cols)) in
                    [(dgate, 5, f, c), (dup, 7, f, c), (ddown, 9, c, f)].into_iter().enumerate()
                {
                    let rank = ranks[i];
                    if rank > 0 {
                        let at_a = |k: usize, j: usize| {
                            (0..rows).map(|o| 0.5 * v[at + 1][o * rank + k] * dw[o * cols + j]).sum()
                        };
                        let at_b = |o: usize, k: usize| {
                            (0..cols).map(|j| 0.5 * dw[o * cols + j] * v[at][k * cols + j]).sum()
                        };
                        out.push((0..rank * cols).map(|m| at_a(m / cols, m % cols)).collect());
                        out.push((0..rows * rank).map(|m| at_b(m / rank, m % rank)).collect());
                    }
                }
                if format != Format::F32 {
                    out.drain(2..4);
                }
                out
            },
        ));
    }
    out
}
