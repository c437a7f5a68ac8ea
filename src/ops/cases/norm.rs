//! Cases: normalisation of rows and of heads.

use super::{Case, Input, gradients, twice};
use crate::gpu::Tensor;
use crate::ops::{Norm, NormKind, head_norm, norm, residual_add};
use crate::reference::{self, NormWeights, NormedHeads};

/// With one column the gradient is nonzero only because of eps.
const EPS: f32 = 1e-3;

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // A whole workgroup per row from 64 columns on a GPU, from 512 on a CPU; from 259 rows on, gradients are summed in
    // slices.
    let shapes = [(1, 1), (5, 7), (63, 65), (65, 64), (3, 512), (259, 521), (1, 2053), (2048, 64)];
    for (n, c) in shapes {
        out.extend(cases_of(n, c, NormKind::Rms, false));
    }
    for (n, c) in [(1, 1), (5, 7), (63, 65), (67, 64), (131, 521), (2, 2053)] {
        out.extend(cases_of(n, c, NormKind::RmsUnitOffset, false));
        out.extend(cases_of(n, c, NormKind::Layer, true));
    }
    for (n, c) in [(5, 7), (67, 64), (3, 1028)] {
        out.extend(cases_of(n, c, NormKind::Layer, false));
    }
    out.push(without_gradient_of_x());
    // N, D, heads of queries and of keys, and the columns before and between them that belong to no head.
    for (n, d, heads, kv_heads, gap) in [
        (1, 8, 1, 1, 0),
        (13, 8, 4, 2, 3),
        (65, 16, 3, 1, 4),
        (37, 64, 3, 1, 0),
        (19, 80, 2, 2, 0),
        (9, 96, 4, 1, 0),
        (5, 128, 8, 2, 0),
        (131, 256, 4, 1, 8),
    ] {
        for kind in [NormKind::Rms, NormKind::RmsUnitOffset, NormKind::Layer] {
            out.extend(head_cases((n, d, heads, kv_heads, gap), kind));
        }
    }
    out
}

/// Hidden sizes, and heads of Qwen 3 and of Gemma 3.
pub(super) fn real_shapes() -> Vec<Case> {
    let mut out = Vec::new();
    for c in [576, 896, 960, 2048, 3072] {
        out.extend(cases_of(3, c, NormKind::Rms, false));
    }
    for c in [640, 1152, 2304] {
        out.extend(cases_of(3, c, NormKind::RmsUnitOffset, false));
    }
    for c in [768, 2560] {
        out.extend(cases_of(3, c, NormKind::Layer, true));
    }
    out.extend(head_cases((5, 128, 16, 8, 0), NormKind::Rms));
    out.extend(head_cases((3, 256, 4, 1, 0), NormKind::RmsUnitOffset));
    out
}

fn weights<'a>(weight: &'a [f64], bias: Option<&'a [f64]>, kind: NormKind) -> NormWeights<'a> {
    NormWeights { weight, bias, eps: EPS as f64, kind }
}

fn cases_of(n: usize, c: usize, kind: NormKind, bias: bool) -> [Case; 2] {
    let shape = format!("N {n} C {c} {kind:?}{}", if bias { " with bias" } else { "" });
    let inputs = move || {
        // A nonzero mean, where it makes a difference; the gradient of a single column would be lost in rounding.
        let mean = if kind == NormKind::Layer { 2.0 } else { 0.0 };
        let Input { data: super::Data::F32(x), .. } = Input::normal(1, n, c, 1.0) else { unreachable!() };
        let x = Input::f32(x.iter().map(|x| x + mean).collect(), n, c);
        let weight = |seed| Input::normal(seed, 1, c, 1.0).watched();
        vec![x.live(0).watched(), Input::normal(3, n, c, 1.0).live(0), weight(2), weight(4)]
    };
    let of = move |t: &[Tensor]| Norm { bias: bias.then_some(t[3]), kind, ..Norm::rms(t[2], EPS) };
    let twin = move |v: &[Vec<f64>]| {
        let [x, dy, weight, with] = [0, 1, 2, 3].map(|i| v[i].clone());
        (x, dy, weight, bias.then_some(with))
    };
    let forward = Case::new(
        "norm_forward",
        &shape,
        inputs(),
        move |r, t| Ok(vec![norm(r, t[0], &of(t))?]),
        move |v| {
            let (x, _, weight, bias) = twin(v);
            vec![reference::norm_forward(&x, weights(&weight, bias.as_deref(), kind))]
        },
    );
    // Recorded twice, so that the second gradients are added to the first.
    let backward = Case::new(
        "norm_backward",
        &shape,
        inputs(),
        move |r, t| {
            let (y, z) = (norm(r, t[0], &of(t))?, norm(r, t[0], &of(t))?);
            let sum = residual_add(r, y, z)?;
            r.backward(&[(sum, t[1])])?;
            Ok(gradients(r, &[t[0], t[2], t[3]]))
        },
        move |v| {
            let (x, dy, weight, bias) = twin(v);
            let d = reference::norm_backward(&x, weights(&weight, bias.as_deref(), kind), &dy);
            let all = [Some(d.dx), Some(d.dweight), bias.map(|_| d.dbias)];
            all.iter().flatten().map(|d| twice(d)).collect()
        },
    );
    [forward, backward]
}

/// Only the gradients of weight and bias.
fn without_gradient_of_x() -> Case {
    let (n, c) = (67, 12);
    Case::new(
        "norm_backward",
        format!("N {n} C {c} of the weight and the bias alone"),
        vec![
            Input::normal(1, n, c, 1.0).live(0),
            Input::normal(3, n, c, 1.0).live(0),
            Input::normal(2, 1, c, 1.0).watched(),
            Input::normal(4, 1, c, 1.0).watched(),
        ],
        |r, t| {
            let y = norm(r, t[0], &Norm { bias: Some(t[3]), kind: NormKind::Layer, ..Norm::rms(t[2], EPS) })?;
            r.backward(&[(y, t[1])])?;
            Ok(gradients(r, t))
        },
        |v| {
            let d = reference::norm_backward(&v[0], weights(&v[2], Some(&v[3]), NormKind::Layer), &v[1]);
            vec![d.dweight, d.dbias]
        },
    )
}

fn head_cases(
    (n, d, heads, kv_heads, gap): (usize, usize, usize, usize, usize),
    kind: NormKind,
) -> [Case; 2] {
    let keys_at = 2 * gap + heads * d;
    let cols = keys_at + 2 * kv_heads * d;
    let shape = format!("N {n} D {d} H {heads} K {kv_heads} gap {gap} {kind:?}");
    let inputs = move || {
        let weight = |seed| Input::normal(seed, 1, d, 1.0).watched();
        let x = Input::normal(1, n, cols, 1.0).live(0).watched();
        vec![x, Input::normal(2, n, cols, 1.0).live(0), weight(3), weight(4), weight(5)]
    };
    // In LayerNorm, the queries have a bias.
    let with_bias = kind == NormKind::Layer;
    let parts = move |t: &[Tensor]| {
        let of_queries = Norm { bias: with_bias.then_some(t[4]), kind, ..Norm::rms(t[2], EPS) };
        [(gap, heads, of_queries), (keys_at, kv_heads, Norm { kind, ..Norm::rms(t[3], EPS) })]
    };
    fn twins(
        v: &[Vec<f64>],
        with_bias: bool,
        kind: NormKind,
        places: [(usize, usize); 2],
    ) -> [NormedHeads<'_>; 2] {
        let norms = [weights(&v[2], with_bias.then_some(&v[4]), kind), weights(&v[3], None, kind)];
        [0, 1].map(|i| NormedHeads { first: places[i].0, heads: places[i].1, norm: norms[i] })
    }
    let places = [(gap, heads), (keys_at, kv_heads)];
    let forward = Case::new(
        "head_norm_forward",
        &shape,
        inputs(),
        move |r, t| Ok(vec![head_norm(r, t[0], &parts(t))?]),
        move |v| vec![reference::head_norm_forward(&v[0], cols, &twins(v, with_bias, kind, places))],
    );
    let backward = Case::new(
        "head_norm_backward",
        &shape,
        inputs(),
        move |r, t| {
            let y = head_norm(r, t[0], &parts(t))?;
            let z = head_norm(r, t[0], &parts(t))?;
            let sum = residual_add(r, y, z)?;
            r.backward(&[(sum, t[1])])?;
            Ok(gradients(r, &[t[0], t[2], t[3], t[4]]))
        },
        move |v| {
            let twins = twins(v, with_bias, kind, places);
            let (dx, of) = reference::head_norm_backward(&v[0], cols, &twins, &v[1]);
            let [[dq, dbias], [dk, _]] = [of[0].clone(), of[1].clone()];
            let all = [Some(dx), Some(dq), Some(dk), with_bias.then_some(dbias)];
            all.iter().flatten().map(|d| twice(d)).collect()
        },
    );
    [forward, backward]
}
