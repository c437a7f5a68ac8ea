//! A gated feed-forward block: normalisation, gate, output product and residual, in two launches.

use super::case::{Case, Input};
use super::linear::{LowRank, Matrix, Norm, aligned, launch_backward_input, launch_linear, weight_gradients};
use super::projection::{self, Prepared, Projection};
use super::tile;
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Accumulate, Format, GradientTarget, Launch, Recorder, Tensor, Word, Work};
use crate::reference;

/// y = x + D (g σ(g) u), (g, u) = the two halves of the projection of the normalised x (Shazeer 2020, arXiv 2002.05202).
///   x (N, C)  gated (2 F, C)  down D (C, F)  ->  y (N, C)
pub fn feed_forward(
    r: &mut Recorder,
    x: Tensor,
    gated: &Projection,
    down: &Matrix,
    down_low_rank: Option<LowRank>,
) -> Result<Tensor> {
    let f = gated.weights.rows / 2;
    assert_eq!((down.rows, down.cols), (x.cols, f), "feed_forward: down for x (N, {}) and F {f}", x.cols);
    let prepared = projection::prepare(r, x, gated);
    let inner = r.tensor("gated", x.rows, f);
    let gates = r.is_training().then(|| r.tensor("gates", x.rows, 2 * f));
    launch_gated(r, x, gated, &prepared, inner, gates);
    let y = r.tensor("feed_forward", x.rows, x.cols);
    let h = launch_linear(r, inner, down, down_low_rank, Some(x), y);
    let Some(gates) = gates else { return Ok(y) };
    let outputs: Vec<Tensor> = prepared.outputs().chain([inner, gates, y]).chain(h).collect();
    let (gated, down) = (gated.clone(), down.clone());
    r.rule(&outputs, move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        let term = weight_gradients(r, inner, &down, down_low_rank.zip(h), dy);
        let dgates = r.tensor("d gates", x.rows, 2 * f);
        launch_gated_backward(r, dy, &down, term, gates, dgates);
        super::add::pass_gradient(r, x, dy)?;
        projection::backward(r, x, &gated, &prepared, dgates);
        Ok(())
    });
    Ok(y)
}

fn launch_gated(
    r: &mut Recorder,
    x: Tensor,
    p: &Projection,
    prepared: &Prepared,
    y: Tensor,
    gates: Option<Tensor>,
) {
    for (gate, up_row) in p.weights.halves() {
        let mut args = vec![(x, Access::Read), (gate.part, Access::Read), (p.norm.gain, Access::Read)];
        args.extend(prepared.addend.map(|t| (t, Access::Read)));
        args.push((y, Access::Write));
        args.extend(gates.into_iter().chain(prepared.inv).map(|t| (t, Access::Write)));
        let (tile, arithmetic) = tile::of_product(r, x.rows, gate.part.format);
        let aligned = aligned(&[x.cols, gate.rows, y.cols, gate.first]);
        let (groups, mut constants) = tile::divide(r, tile, x.rows, 2 * gate.rows, aligned);
        constants.extend(arithmetic);
        constants.extend([
            ("NORM", 1),
            ("ADDEND", prepared.addend.is_some() as u32),
            ("KEEP", gates.is_some() as u32),
        ]);
        let terms = (2 * x.cols * gate.rows) as f64;
        r.launch(Launch {
            kernel: KernelKey { name: "gated_forward", constants },
            params: vec![
                x.rows.into(),
                x.cols.into(),
                gate.rows.into(),
                y.cols.into(),
                gate.first.into(),
                gate.first_row.into(),
                up_row.into(),
                Word::F32(p.norm.eps),
            ],
            args,
            groups,
            work: Work { flops: 2.0 * terms, bytes: 4.0 * (x.cols + 3 * gate.rows) as f64 },
        });
    }
}

fn launch_gated_backward(
    r: &mut Recorder,
    dy: Tensor,
    down: &Matrix,
    term: Option<(Tensor, Tensor)>,
    gates: Tensor,
    dgates: Tensor,
) {
    // All pieces but the last add up beforehand.
    let (last, others) = down.pieces.split_last().expect("a matrix has pieces");
    let addend = (!others.is_empty()).then(|| r.tensor("d gated", dy.rows, down.cols));
    for (i, piece) in others.iter().enumerate() {
        let accumulate = if i == 0 { Accumulate::Set } else { Accumulate::Add };
        let target = GradientTarget { tensor: addend.expect("others"), accumulate };
        launch_backward_input(r, dy, piece.first, *piece, 1.0, None, target);
    }
    let mut args = vec![(dy, Access::Read), (last.part, Access::Read)];
    args.extend(term.iter().flat_map(|(g, a)| [(*g, Access::Read), (*a, Access::Read)]));
    args.extend(addend.map(|t| (t, Access::Read)));
    args.extend([(gates, Access::Read), (dgates, Access::Write)]);
    let (cols, rank) = (down.cols, term.map_or(0, |(g, _)| g.cols));
    let (groups, mut constants) = tile::divide(
        r,
        tile::of_rows(r, dy.rows),
        dy.rows,
        cols,
        aligned(&[last.rows, cols, rank, dy.cols, last.first]),
    );
    constants.extend([("LOW_RANK", term.is_some() as u32), ("ADDEND", addend.is_some() as u32)]);
    constants.push(("FORMAT", last.part.format.code()));
    let terms = ((last.rows + rank) * cols) as f64;
    r.launch(Launch {
        kernel: KernelKey { name: "gated_backward", constants },
        params: vec![
            dy.rows.into(),
            last.rows.into(),
            cols.into(),
            dy.cols.into(),
            last.first.into(),
            last.first_row.into(),
            rank.into(),
        ],
        args,
        groups,
        work: Work { flops: 2.0 * terms, bytes: 4.0 * (last.rows + rank + 4 * cols) as f64 },
    });
}

pub(super) fn cases() -> Vec<Case> {
    const EPS: f32 = 1e-3;
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
    for (n, c, f, ranks, scale, format) in shapes {
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
            let low =
                |i: usize, at: usize| (ranks[i] > 0).then(|| LowRank { a: t[at], b: t[at + 1], scale: 0.5 });
            let low_rank = [low(0, 5).map(|l| (0, l)), low(1, 7).map(|l| (f, l))];
            let gated = Projection {
                norm: Norm { gain: t[1], eps: EPS },
                weights: t[2].into(),
                low_rank: low_rank.into_iter().flatten().collect(),
            };
            feed_forward(r, t[0], &gated, &t[3].into(), low(2, 9))
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
