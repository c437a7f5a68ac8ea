//! Cases: log-probabilities.

use super::{Case, Input};
use crate::gpu::Format;
use crate::ops::{Matrix, VOCAB_CHUNK, gather_rows, logprob, residual_add};
use crate::reference;

pub(super) fn cases() -> Vec<Case> {
    // T, C, the rows of each part of W, the chunk, and the scale of h: one or several chunks, narrow and wide.
    let shapes: [(usize, usize, &[usize], usize, f32); 9] = [
        (1, 1, &[1], VOCAB_CHUNK, 1.0),
        (5, 3, &[7], 3, 1.0),
        (65, 8, &[64], 64, 1.0),
        (67, 16, &[130, 61], 63, 1.0),
        (13, 16, &[512], VOCAB_CHUNK, 1.0),
        (7, 8, &[1025, 1024], 1024, 1.0),
        (3, 8, &[5003], VOCAB_CHUNK, 1.0),
        // Logits of ±100: nearly certain rows.
        (61, 64, &[257], 100, 5.0),
        (2048, 64, &[512], VOCAB_CHUNK, 1.0),
    ];
    let mut out = Vec::new();
    for (t, c, parts, chunk, scale) in shapes {
        let v: usize = parts.iter().sum();
        let shape = format!("T {t} C {c} V {parts:?} by {chunk} scale {scale}");
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
                let l = logprob(r, t[0], &Matrix::new(t[3..].to_vec()), t[1], chunk)?;
                Ok(vec![l.logp, l.entropy, l.lse])
            },
            move |v| {
                let l = reference::logprob_forward(&v[0], &weights(v), &for_forward, c);
                vec![l.logp, l.entropy, l.lse]
            },
        ));
        out.push(Case::new(
            "logprob_backward",
            &shape,
            inputs(true),
            move |r, t| {
                let l = logprob(r, t[0], &Matrix::new(t[3..].to_vec()), t[1], chunk)?;
                r.backward(&[(l.logp, t[2])])?;
                Ok([&t[..1], &t[3..]].concat().iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let (dh, dw) = reference::logprob_backward(&v[0], &weights(v), &targets, &v[2], c);
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
    // A frozen head of 16 bits.
    for format in [Format::F16, Format::Bf16] {
        let (t, c, v, chunk) = (65, 16, 191, 63);
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
                let l = logprob(r, t[0], &t[3].into(), t[1], chunk)?;
                r.backward(&[(l.logp, t[2])])?;
                Ok([l.logp].into_iter().chain(r.gradient(t[0])).collect())
            },
            move |v| {
                let logp = reference::logprob_forward(&v[0], &v[3], &targets, c).logp;
                vec![logp, reference::logprob_backward(&v[0], &v[3], &targets, &v[2], c).0]
            },
        ));
    }
    out
}

/// Vocabularies of SmolLM2, Qwen 2.5 and Gemma 3, the last one's in two parts, which together are above the 128 MiB that
/// WebGPU promises for a binding.
pub(super) fn real_shapes() -> Vec<Case> {
    vec![
        tied(3, 576, &[49_152], Format::F16),
        tied(2, 128, &[151_936], Format::Bf16),
        tied(2, 144, &[131_072, 131_072], Format::F32),
    ]
}

/// The heads of Qwen 2.5 0.5B and of Gemma 3 270M.
pub(super) fn largest_shapes() -> Vec<Case> {
    vec![tied(2, 896, &[75_968, 75_968], Format::Bf16), tied(2, 640, &[131_072, 131_072], Format::F16)]
}

/// A frozen table that gives the rows and is the head for them.
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
            let l = logprob(r, h, &table, t[1], VOCAB_CHUNK)?;
            r.backward(&[(l.logp, t[2])])?;
            Ok([l.logp, l.entropy].into_iter().chain(r.gradient(t[0])).collect())
        },
        move |x| {
            let table = x[4..].concat();
            let h = reference::residual_add(&x[0], &reference::gather_rows(&table, &rows, c));
            let l = reference::logprob_forward(&h, &table, &targets, c);
            let (dh, _) = reference::logprob_backward(&h, &table, &targets, &x[2], c);
            vec![l.logp, l.entropy, dh]
        },
    )
}
