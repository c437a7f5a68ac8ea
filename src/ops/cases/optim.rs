//! Cases: clipping and the optimisers' steps.

use super::{Case, Input};
use crate::ops::{Adafactor, AdafactorState, AdamW, adafactor, adamw, global_norm};
use crate::reference;

pub(super) fn cases() -> Vec<Case> {
    [norm_cases(), adamw_cases(), adafactor_cases()].into_iter().flatten().collect()
}

/// The factor that clips `g` to `max_norm`, 0 where it is not finite.
fn scale_of(g: &[f64], max_norm: f64) -> f64 {
    let norm = reference::global_norm(g);
    if norm.is_finite() { reference::clip_scale(norm, max_norm) } else { 0.0 }
}

fn norm_cases() -> Vec<Case> {
    // Lengths of the gradients, and a value that is not finite in some.
    let shapes: [(&[usize], f32, Option<f32>); 7] = [
        (&[1], 0.0, None),
        (&[7, 64, 4095], 1.0, None),
        (&[4097, 1, 300_001], 1e6, None),
        (&[63, 65], 0.5, Some(f32::INFINITY)),
        (&[63, 65], 0.5, Some(f32::NEG_INFINITY)),
        (&[63, 65], 0.0, Some(f32::NAN)),
        // Each is finite, but the sum of their squares is not.
        (&[63, 65], 1.0, Some(1e20)),
    ];
    let case = |(lengths, max_norm, bad): (&[usize], f32, Option<f32>)| {
        let mut inputs: Vec<Input> =
            lengths.iter().enumerate().map(|(i, n)| Input::normal(i as u32, *n, 1, 3.0)).collect();
        if let Some(bad) = bad {
            let n = lengths[0];
            inputs[0] = Input::f32((0..n).map(|i| if i == n / 2 { bad } else { 0.5 }).collect(), 1, n);
        }
        Case::new(
            "global_norm",
            format!("{lengths:?} max {max_norm} with {bad:?}"),
            inputs,
            move |r, t| Ok(vec![global_norm(r, t, max_norm)?]),
            move |v| {
                let norm = reference::global_norm(&v.concat());
                match bad {
                    None => vec![vec![norm, reference::clip_scale(norm, max_norm.into()), 1.0, 0.0]],
                    Some(_) => vec![vec![0.0; 4]],
                }
            },
        )
    };
    shapes.into_iter().map(case).collect()
}

fn adamw_cases() -> Vec<Case> {
    let settings = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-4, weight_decay: 0.1 };
    let mut out = Vec::new();
    for (rows, cols, step, max_norm, bad) in
        [(1, 1, 1, 0.0, false), (61, 67, 3, 1.0, false), (512, 512, 1000, 0.0, false), (7, 13, 2, 1.0, true)]
    {
        let mut g = Input::normal(2, rows, cols, 1.0);
        if bad {
            g = Input::f32(vec![f32::NAN; rows * cols], rows, cols);
        }
        let v: Vec<f32> = (0..rows * cols).map(|i| 0.01 * (i % 31) as f32).collect();
        let inputs = vec![
            Input::normal(1, rows, cols, 1.0).watched(),
            g,
            Input::normal(3, rows, cols, 0.1),
            Input::f32(v, rows, cols),
        ];
        let corrections = [settings.beta1, settings.beta2].map(|b| 1.0 / (1.0 - f64::from(b).powi(step)));
        let case = Case::new(
            "adamw",
            format!("({rows}, {cols}) step {step} max norm {max_norm} bad {bad}"),
            inputs,
            move |r, t| {
                let norm = global_norm(r, &[t[1]], max_norm)?;
                adamw(r, t[0], t[1], t[2], t[3], norm, settings)?;
                Ok(vec![t[0], t[2], t[3]])
            },
            move |x| {
                if bad {
                    return vec![x[0].clone(), x[2].clone(), x[3].clone()];
                }
                let [beta1, beta2, eps, decay] =
                    [settings.beta1, settings.beta2, settings.epsilon, settings.weight_decay].map(f64::from);
                let scale = scale_of(&x[1], max_norm.into());
                let lr = f64::from(0.05f32);
                let new = reference::adamw_step(
                    &x[0],
                    &x[1],
                    &x[2],
                    &x[3],
                    step as u32,
                    lr,
                    beta1,
                    beta2,
                    eps,
                    decay,
                    scale,
                );
                vec![new.w, new.m, new.v]
            },
        );
        out.push(case.scalars(&[0.05, corrections[0] as f32, corrections[1] as f32]));
    }
    out
}

fn adafactor_cases() -> Vec<Case> {
    let settings = Adafactor { weight_decay: 0.1, ..Adafactor::default() };
    let mut out = Vec::new();
    for (rows, cols, step, max_norm, gradient, bad) in [
        (1, 1, 1, 0.0, 1.0, false),
        (13, 7, 1, 1.0, 1.0, false),
        (65, 63, 2, 0.0, 1e-12, false),
        (512, 172, 50, 1.0, 1e4, false),
        (17, 64, 3, 1.0, 1.0, true),
    ] {
        for matrix in [true, false] {
            let mut g = Input::normal(2, rows, cols, gradient);
            if bad {
                g = Input::f32(vec![f32::INFINITY; rows * cols], rows, cols);
            }
            let squares = |seed: usize, n: usize| -> Vec<f32> {
                (0..n).map(|i| gradient * gradient * (1.0 + (i * seed % 11) as f32)).collect()
            };
            let mut inputs = vec![Input::normal(1, rows, cols, 1.0).watched(), g];
            match matrix {
                true => inputs
                    .extend([Input::f32(squares(3, rows), rows, 1), Input::f32(squares(5, cols), 1, cols)]),
                false => inputs.push(Input::f32(squares(7, rows * cols), rows, cols)),
            }
            let beta2 = 1.0 - f64::from(step).powf(reference::ADAFACTOR_DECAY_RATE);
            let kind = if matrix { "matrix" } else { "vector" };
            let case = Case::new(
                "adafactor",
                format!("{kind} ({rows}, {cols}) step {step} g {gradient:e} bad {bad}"),
                inputs,
                move |r, t| {
                    let norm = global_norm(r, &[t[1]], max_norm)?;
                    let state = match matrix {
                        true => AdafactorState::Matrix { row: t[2], col: t[3] },
                        false => AdafactorState::Vector { v: t[2] },
                    };
                    adafactor(r, t[0], t[1], state, norm, settings)?;
                    Ok([&t[..1], &t[2..]].concat())
                },
                move |x| {
                    if bad {
                        return [&x[..1], &x[2..]].concat();
                    }
                    let state = match matrix {
                        true => reference::AdafactorState::Matrix { row: x[2].clone(), col: x[3].clone() },
                        false => reference::AdafactorState::Vector { v: x[2].clone() },
                    };
                    let (lr, decay) = (f64::from(0.05f32), f64::from(settings.weight_decay));
                    let scale = scale_of(&x[1], max_norm.into());
                    let (w, state) =
                        reference::adafactor_step(&x[0], &x[1], &state, step as u32, lr, decay, scale);
                    match state {
                        reference::AdafactorState::Matrix { row, col } => vec![w, row, col],
                        reference::AdafactorState::Vector { v } => vec![w, v],
                    }
                },
            );
            out.push(case.scalars(&[0.05, 0.0, 0.0, beta2 as f32]));
        }
    }
    out
}
