//! Cases: log-probabilities.

use super::{Case, Input};
use crate::gpu::Format;
use crate::ops::{
    LogitTransform, Matrix, VOCAB_CHUNK, gather_rows, logprob, logprob_with_squares, residual_add,
};
use crate::reference;

/// A model's logit transform, and the same for `reference`.
pub(super) fn transform(scale: f32, soft_cap: Option<f32>) -> (LogitTransform, reference::LogitTransform) {
    let exact = reference::LogitTransform { scale: scale.into(), soft_cap: soft_cap.map(f64::from) };
    (LogitTransform { scale, soft_cap }, exact)
}

pub(super) fn cases() -> Vec<Case> {
    type Shape = (usize, usize, &'static [usize], usize, f32, (f32, Option<f32>));
    let none = (1.0, None);
    // T, C, the rows of each part of W, the chunk, the scale of h, and the logit transform: one or several chunks,
    // narrow and wide.
    let shapes: [Shape; 13] = [
        (1, 1, &[1], VOCAB_CHUNK, 1.0, none),
        (5, 3, &[7], 3, 1.0, none),
        (65, 8, &[64], 64, 1.0, none),
        (67, 16, &[130, 61], 63, 1.0, none),
        (13, 16, &[512], VOCAB_CHUNK, 1.0, none),
        (7, 8, &[1025, 1024], 1024, 1.0, none),
        (3, 8, &[5003], VOCAB_CHUNK, 1.0, none),
        // Logits of ±100: nearly certain rows.
        (61, 64, &[257], 100, 5.0, none),
        (2048, 64, &[512], VOCAB_CHUNK, 1.0, none),
        (65, 16, &[63, 97], 50, 1.0, (0.25, None)),
        // Logits of ±16 before the cap.
        (33, 16, &[200], VOCAB_CHUNK, 1.0, (1.0, Some(5.0))),
        (5, 8, &[2049], 1027, 1.0, (0.5, Some(3.0))),
        // Most logits are at the cap.
        (13, 64, &[1028], VOCAB_CHUNK, 5.0, (2.0, Some(30.0))),
    ];
    let mut out = Vec::new();
    for (t, c, parts, chunk, scale, (factor, cap)) in shapes {
        let (transform, exact) = transform(factor, cap);
        let v: usize = parts.iter().sum();
        let mut shape = format!("T {t} C {c} V {parts:?} by {chunk} scale {scale}");
        if transform != LogitTransform::default() {
            shape += &format!(" logits times {factor} cap {cap:?}");
        }
        let targets: Vec<u32> = (0..t).map(|i| ((i * 7919 + v - 1) % v) as u32).collect();
        let inputs = |watched: bool| {
            let mark = |input: Input| if watched { input.watched() } else { input };
            let mut inputs = vec![
                mark(Input::normal(1, t, c, scale).live(0)),
                Input::u32(targets.clone(), t, 1).live(0),
                Input::normal(2, t, 1, 1.0).live(0),
            ];
            inputs
                .extend(parts.iter().enumerate().map(|(i, v)| mark(Input::normal(3 + i as u32, *v, c, 1.0))));
            inputs
        };
        let weights = |v: &[Vec<f64>]| v[3..].concat();
        let for_forward = targets.clone();
        out.push(Case::new(
            "logprob_forward",
            &shape,
            inputs(false),
            move |r, t| {
                let l = logprob(r, t[0], &Matrix::new(t[3..].to_vec()), t[1], chunk, transform)?;
                Ok(vec![l.logp, l.entropy, l.lse])
            },
            move |v| {
                let l = reference::logprob_forward(&v[0], &weights(v), &for_forward, c, exact);
                vec![l.logp, l.entropy, l.lse]
            },
        ));
        // For nearly certain rows, log Σ p² has the absolute error of the logits.
        let with_squares = if scale == 1.0 || cap.is_some() { Some(targets.clone()) } else { None };
        out.extend(with_squares.map(|targets| {
            Case::new(
                "logprob_forward",
                format!("{shape} with squares"),
                inputs(false),
                move |r, t| {
                    let w = Matrix::new(t[3..].to_vec());
                    let l = logprob_with_squares(r, t[0], &w, t[1], chunk, transform)?;
                    Ok([l.logp, l.entropy, l.lse].into_iter().chain(l.log_sum_squares).collect())
                },
                move |v| {
                    let l = reference::logprob_forward(&v[0], &weights(v), &targets, c, exact);
                    vec![l.logp, l.entropy, l.lse, l.log_sum_squares]
                },
            )
        }));
        out.push(Case::new(
            "logprob_backward",
            &shape,
            inputs(true),
            move |r, t| {
                let l = logprob(r, t[0], &Matrix::new(t[3..].to_vec()), t[1], chunk, transform)?;
                r.backward(&[(l.logp, t[2])])?;
                Ok([&t[..1], &t[3..]].concat().iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let (dh, dw) = reference::logprob_backward(&v[0], &weights(v), &targets, &v[2], c, exact);
                let mut rest = dw.as_slice();
                let dw = parts.iter().map(|rows| {
                    let (part, others) = rest.split_at(rows * c);
                    rest = others;
                    part.to_vec()
                });
                [dh].into_iter().chain(dw).collect()
            },
        ));
    }
    // A frozen head of fewer bits.
    for (format, c) in [(Format::F16, 16), (Format::Bf16, 16), (Format::Q8, 64), (Format::Q4, 128)] {
        let (t, v, chunk) = (65, 191, 63);
        let (transform, exact) = transform(1.0, None);
        let targets: Vec<u32> = (0..t).map(|i| ((i * 7919 + v - 1) % v) as u32).collect();
        let inputs = vec![
            Input::normal(1, t, c, 1.0).live(0).watched(),
            Input::u32(targets.clone(), t, 1).live(0),
            Input::normal(2, t, 1, 1.0).live(0),
            Input::normal(3, v, c, 1.0).stored(format),
        ];
        out.push(Case::new(
            "logprob_backward",
            format!("T {t} C {c} V {v} by {chunk} {format:?}"),
            inputs,
            move |r, t| {
                let l = logprob(r, t[0], &t[3].into(), t[1], chunk, transform)?;
                r.backward(&[(l.logp, t[2])])?;
                Ok([l.logp].into_iter().chain(r.gradient(t[0])).collect())
            },
            move |v| {
                let logp = reference::logprob_forward(&v[0], &v[3], &targets, c, exact).logp;
                vec![logp, reference::logprob_backward(&v[0], &v[3], &targets, &v[2], c, exact).0]
            },
        ));
    }
    out
}

/// Vocabularies of SmolLM2, Qwen 2.5 and Gemma 3; the last in two parts, since together they exceed the 128 MiB that
/// WebGPU guarantees for a binding.
pub(super) fn real_shapes() -> Vec<Case> {
    vec![
        tied(3, 576, &[49_152], Format::F16),
        tied(2, 128, &[151_936], Format::Bf16),
        tied(2, 128, &[151_936], Format::Q8),
        tied(2, 144, &[131_072, 131_072], Format::F32),
    ]
}

/// The heads of Qwen 2.5 0.5B and of Gemma 3 270M.
pub(super) fn largest_shapes() -> Vec<Case> {
    vec![tied(2, 896, &[75_968, 75_968], Format::Bf16), tied(2, 640, &[131_072, 131_072], Format::F16)]
}

/// A frozen table that is both the embedding and the output head.
fn tied(t: usize, c: usize, parts: &'static [usize], format: Format) -> Case {
    let v: usize = parts.iter().sum();
    let targets: Vec<u32> = (0..t).map(|i| ((i * 7919 + v - 1) % v) as u32).collect();
    let rows: Vec<u32> = (0..t).map(|i| ((i * 104_729 + 5) % v) as u32).collect();
    let mut inputs = vec![
        Input::normal(1, t, c, 0.1).live(0).watched(),
        Input::u32(targets.clone(), t, 1).live(0),
        Input::normal(2, t, 1, 1.0).live(0),
        Input::u32(rows.clone(), t, 1).live(0),
    ];
    let part = |(i, rows): (usize, &usize)| Input::weights(3 + i as u32, *rows, c, 0.1).stored(format);
    inputs.extend(parts.iter().enumerate().map(part));
    Case::new(
        "logprob_backward",
        format!("T {t} C {c} V {parts:?} {format:?}, tied"),
        inputs,
        |r, t| {
            let table = Matrix::new(t[4..].to_vec());
            let h = gather_rows(r, &table, t[3], None)?;
            let h = residual_add(r, t[0], h)?;
            let l = logprob(r, h, &table, t[1], VOCAB_CHUNK, LogitTransform::default())?;
            r.backward(&[(l.logp, t[2])])?;
            Ok([l.logp, l.entropy].into_iter().chain(r.gradient(t[0])).collect())
        },
        move |x| {
            let table = x[4..].concat();
            let h = reference::residual_add(&x[0], &reference::gather_rows(&table, &rows, c));
            let plain = reference::LogitTransform::default();
            let l = reference::logprob_forward(&h, &table, &targets, c, plain);
            let (dh, _) = reference::logprob_backward(&h, &table, &targets, &x[2], c, plain);
            vec![l.logp, l.entropy, dh]
        },
    )
}
