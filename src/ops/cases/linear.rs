//! Cases: linear layers.

use super::{Case, Input};
use crate::gpu::{Format, Recorder, Tensor};
use crate::ops::{Linear, Lora, Matrix, linear, residual_add};
use crate::reference;

/// `terms` scaled and summed.
fn combine(terms: &[(f64, &[f64])]) -> Vec<f64> {
    (0..terms[0].1.len()).map(|i| terms.iter().map(|(scale, v)| scale * v[i]).sum()).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // One, a prime, around the tile of 8 and around the 64 lanes; weights in parts; many rows, summed in slices.
    let shapes: [(usize, usize, &[usize]); 8] = [
        (1, 1, &[1]),
        (13, 7, &[17]),
        (7, 8, &[9]),
        (8, 9, &[7]),
        (65, 64, &[63]),
        (67, 33, &[521]),
        (61, 17, &[13, 64, 3]),
        (2048, 64, &[172]),
    ];
    for (n, i, parts) in shapes {
        let o = parts.iter().sum();
        let shape = format!("N {n} I {i} O {parts:?}");
        let inputs = || {
            let x = Input::normal(1, n, i, 1.0).live(0).watched();
            let part = |(k, rows): (usize, &usize)| Input::normal(3 + k as u32, *rows, i, 1.0).watched();
            let dy = Input::normal(2, n, o, 1.0).live(0);
            [x, dy].into_iter().chain(parts.iter().enumerate().map(part)).collect()
        };
        out.push(Case::new(
            "linear_forward",
            &shape,
            inputs(),
            |r, t| Ok(vec![linear(r, t[0], &Matrix::new(t[2..].to_vec()).into(), None)?]),
            move |v| vec![reference::linear_forward(&v[0], &v[2..].concat(), n, i, o)],
        ));
        // Twice over, so that the second gradients are added to the first.
        out.push(Case::new(
            "linear_backward",
            &shape,
            inputs(),
            |r, t| {
                let w = Matrix::new(t[2..].to_vec()).into();
                let y = linear(r, t[0], &w, None)?;
                let z = linear(r, t[0], &w, None)?;
                let sum = residual_add(r, y, z)?;
                r.backward(&[(sum, t[1])])?;
                Ok([&t[..1], &t[2..]].concat().iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let dx = reference::linear_backward_input(&v[1], &v[2..].concat(), n, i, o);
                let dw = combine(&[(2.0, &reference::linear_backward_weight(&v[1], &v[0], n, i, o))]);
                let mut first = 0;
                let dw = parts.iter().map(|rows| {
                    first += rows;
                    dw[(first - rows) * i..first * i].to_vec()
                });
                [combine(&[(2.0, &dx)])].into_iter().chain(dw).collect()
            },
        ));
    }
    for (n, i, o, rank) in [(1, 1, 1, 1), (13, 7, 17, 3), (65, 64, 63, 8), (257, 33, 521, 4)] {
        let shape = format!("N {n} I {i} O {o} R {rank}");
        let inputs = move || {
            vec![
                Input::normal(1, n, i, 1.0).live(0).watched(),
                Input::normal(2, o, i, 1.0),
                Input::normal(3, rank, i, 1.0).watched(),
                Input::normal(4, o, rank, 1.0).watched(),
                Input::normal(5, n, o, 1.0).live(0).watched(),
                Input::normal(6, n, o, 1.0).live(0),
            ]
        };
        // With the low-rank term, the residual, both.
        let record = |r: &mut Recorder, t: &[Tensor]| {
            let plain = Linear::from(t[1]);
            let with_lora =
                Linear { lora: vec![(0, Lora { a: t[2], b: t[3], scale: 0.5 })], ..plain.clone() };
            let terms = [(&with_lora, None), (&plain, Some(t[4])), (&with_lora, Some(t[4]))];
            terms.map(|(w, residual)| linear(r, t[0], w, residual)).into_iter().collect()
        };
        out.push(Case::new("linear_forward", format!("{shape} and residual"), inputs(), record, move |v| {
            let low_rank = reference::lora_forward(&v[0], &v[1], &v[2], &v[3], 0.5, n, i, o, rank).y;
            let plain = reference::linear_forward(&v[0], &v[1], n, i, o);
            let [plain, both] = [plain, low_rank.clone()].map(|y| reference::residual_add(&y, &v[4]));
            vec![low_rank, plain, both]
        }));
        out.push(Case::new(
            "linear_backward",
            format!("{shape} and residual"),
            inputs(),
            move |r, t| {
                let terms: Vec<Tensor> = record(r, t)?;
                let sum = residual_add(r, terms[0], terms[1])?;
                let sum = residual_add(r, sum, terms[2])?;
                r.backward(&[(sum, t[5])])?;
                Ok([t[0], t[2], t[3], t[4]].iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let g = reference::lora_backward(&v[5], &v[0], &v[1], &v[2], &v[3], 0.5, n, i, o, rank);
                let plain = reference::linear_backward_input(&v[5], &v[1], n, i, o);
                let dx = combine(&[(2.0, &g.dx), (1.0, &plain)]);
                [dx].into_iter().chain([g.da, g.db, v[5].clone()].map(|d| combine(&[(2.0, &d)]))).collect()
            },
        ));
    }
    // Frozen matrices of 16 bits: rounded numbers, products in f32 as ever.
    for format in [Format::F16, Format::Bf16] {
        for (n, i, parts) in [(13, 12, &[17, 8][..]), (65, 64, &[64]), (131, 132, &[93])] {
            let o: usize = parts.iter().sum();
            let mut inputs = vec![
                Input::normal(1, n, i, 1.0).live(0).watched(),
                Input::normal(2, n, o, 1.0).live(0),
                Input::normal(3, 3, i, 1.0),
                Input::normal(4, o, 3, 1.0),
            ];
            let part = |(k, rows): (usize, &usize)| Input::normal(5 + k as u32, *rows, i, 1.0).stored(format);
            inputs.extend(parts.iter().enumerate().map(part));
            let record = |r: &mut Recorder, t: &[Tensor]| {
                let mut w = Linear::from(Matrix::new(t[4..].to_vec()));
                let y = linear(r, t[0], &w, None)?;
                w.lora.push((0, Lora { a: t[2], b: t[3], scale: 0.5 }));
                Ok([y, linear(r, t[0], &w, None)?])
            };
            let shape = format!("N {n} I {i} O {parts:?} {format:?}");
            out.push(Case::new(
                "linear_forward",
                &shape,
                inputs.clone(),
                move |r, t| record(r, t).map(Vec::from),
                move |v| {
                    let w = v[4..].concat();
                    let plain = reference::linear_forward(&v[0], &w, n, i, o);
                    vec![plain, reference::lora_forward(&v[0], &w, &v[2], &v[3], 0.5, n, i, o, 3).y]
                },
            ));
            out.push(Case::new(
                "linear_backward",
                &shape,
                inputs,
                move |r, t| {
                    let [y, z] = record(r, t)?;
                    let sum = residual_add(r, y, z)?;
                    r.backward(&[(sum, t[1])])?;
                    Ok(r.gradient(t[0]).into_iter().collect())
                },
                move |v| {
                    let w = v[4..].concat();
                    let plain = reference::linear_backward_input(&v[1], &w, n, i, o);
                    let low = reference::lora_backward(&v[1], &v[0], &w, &v[2], &v[3], 0.5, n, i, o, 3);
                    vec![combine(&[(1.0, &plain), (1.0, &low.dx)])]
                },
            ));
        }
    }
    // Rows far beyond the range of f16, all of a size and with elements of ordinary size among them; weights up to its end.
    for (n, spread, w) in [(5, 1.0, 1.0), (37, 1.0, 1e4), (37, 1e-6, 1.0)] {
        let (i, o) = (68, 44);
        let scale = move |k: usize| if k.is_multiple_of(3) { 1e6 } else { 1e6 * spread };
        let x = (0..n * i).map(|k| (k as f32 * 1.7).sin() * scale(k)).collect();
        out.push(Case::new(
            "linear_forward",
            format!("N {n} I {i} O {o} F16, x 1e6 and {:.0e}, w {w:.0e}", 1e6 * spread),
            vec![Input::f32(x, n, i).live(0), Input::normal(2, o, i, w).stored(Format::F16)],
            |r, t| Ok(vec![linear(r, t[0], &t[1].into(), None)?]),
            move |v| vec![reference::linear_forward(&v[0], &v[1], n, i, o)],
        ));
    }
    out
}

/// A product of few rows.
pub(super) fn small_case() -> Case {
    let (n, i, o) = (5, 68, 44);
    Case::new(
        "linear_forward",
        format!("N {n} I {i} O {o} F16"),
        vec![Input::normal(1, n, i, 1.0), Input::normal(2, o, i, 1.0).stored(Format::F16)],
        |r, t| Ok(vec![linear(r, t[0], &t[1].into(), None)?]),
        move |v| vec![reference::linear_forward(&v[0], &v[1], n, i, o)],
    )
}
