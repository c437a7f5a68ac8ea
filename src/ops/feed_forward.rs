//! A feed-forward block: normalisation, first layer, activation, second layer and residual. If the block supports it,
//! it is two launches; otherwise it is a sequence of ops.

use super::activation::{Activation, activation, gated_activation};
use super::linear::{self, Linear, linear, lora_terms, weight_gradients};
use super::norm::{Norm, norm};
use super::product::{self, Forward, Shared, aligned, launch_backward_input};
use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Accumulate, GradientTarget, Launch, Recorder, Tensor, Word, Work, read, write};

/// Two layers with an activation between them.
#[derive(Clone, Debug)]
pub struct FeedForward {
    /// The normalisation of the rows, if any.
    pub norm: Option<Norm>,
    /// The first layer: if gated (2 F, C), gate above up; otherwise (F, C).
    pub up: Linear,
    /// Whether half of the first layer's output is a gate: y = activation(gate) · up.
    pub gated: bool,
    /// The activation.
    pub activation: Activation,
    /// The second layer, (C, F).
    pub down: Linear,
}

/// y = down(activation(up(norm(x)))) (+ residual).
///   x (N, C)  residual (N, C)  ->  y (N, C)
pub fn feed_forward(
    r: &mut Recorder,
    x: Tensor,
    block: &FeedForward,
    residual: Option<Tensor>,
) -> Result<Tensor> {
    let f = block.up.weights.rows / if block.gated { 2 } else { 1 };
    assert_eq!(block.down.weights.cols, f, "feed_forward: down for F {f}");
    let fuses = r.tuning().fused_blocks && block.gated;
    let fused_norm = block.norm.filter(|norm| fuses && norm.fused(r).is_some());
    // Normalise separately unless the first launch does it.
    let x = match &block.norm {
        Some(n) if fused_norm.is_none() => norm(r, x, n)?,
        _ => x,
    };
    if fuses {
        return fused(r, x, block, fused_norm, residual);
    }
    let inner = linear(r, x, &block.up, None)?;
    let inner = match block.gated {
        true => gated_activation(r, inner, block.activation)?,
        false => activation(r, inner, block.activation)?,
    };
    linear(r, inner, &block.down, residual)
}

fn fused(
    r: &mut Recorder,
    x: Tensor,
    block: &FeedForward,
    norm: Option<Norm>,
    residual: Option<Tensor>,
) -> Result<Tensor> {
    let FeedForward { up, down, activation, .. } = block;
    let f = down.weights.cols;
    let terms = lora_terms(r, x, norm.and_then(|norm| norm.fused(r)), up);
    let inner = r.tensor("gated", x.rows, f);
    let saved = r.is_training().then(|| Saved {
        gates: r.tensor("gates", x.rows, 2 * f),
        inverse: norm.map(|_| r.tensor("inverse rms", x.rows, 1)),
    });
    launch_gated(r, x, norm, up, *activation, terms.sum, inner, saved);
    let y = r.tensor("feed_forward", x.rows, down.weights.rows);
    let down_hidden = linear::launch(r, inner, down, residual, y);
    let Some(Saved { gates, inverse }) = saved else { return Ok(y) };
    let outputs = terms.hidden.iter().copied().chain(terms.sum).chain(down_hidden.iter().copied());
    let outputs: Vec<Tensor> = outputs.chain([inner, gates, y]).chain(inverse).collect();
    let (up, down, activation) = (up.clone(), down.clone(), *activation);
    r.rule(&outputs, move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        let of_down = weight_gradients(r, inner, None, &down, &down_hidden, dy);
        let dgates = r.tensor("d gates", x.rows, 2 * f);
        launch_gated_backward(r, dy, &down, activation, of_down.first().copied(), gates, dgates);
        if let Some(residual) = residual {
            super::add::pass_gradient(r, residual, dy)?;
        }
        linear::fused_backward(r, x, norm.zip(inverse), &up, &terms.hidden, dgates);
        Ok(())
    });
    Ok(y)
}

/// The tensors that the backward pass needs.
#[derive(Clone, Copy)]
struct Saved {
    /// Gate and up, (N, 2 F).
    gates: Tensor,
    /// The rows' inverse root mean squares, (N, 1), if the first launch normalises them.
    inverse: Option<Tensor>,
}

constants! {
    struct GatedForward {
        activation: u32,
        bias: bool,
        lora: bool,
        save_for_backward: bool,
    }
}

#[allow(clippy::too_many_arguments, reason = "the operands of one launch")]
fn launch_gated(
    r: &mut Recorder,
    x: Tensor,
    norm: Option<Norm>,
    up: &Linear,
    activation: Activation,
    lora: Option<Tensor>,
    y: Tensor,
    saved: Option<Saved>,
) {
    for (gate, up_row) in up.weights.halves() {
        let along = aligned(&[x.cols]);
        let across = aligned(&[gate.rows, y.cols, gate.first]);
        let mut args = vec![read("x", x).rows(along), read("w", gate.part).rows(along)];
        args.extend(norm.map(|norm| read("norm_weight", norm.weight).rows(along)));
        args.extend(up.bias.map(|bias| read("bias", bias).rows(across)));
        args.extend(lora.map(|lora| read("lora", lora).rows(across)));
        args.push(write("y", y).rows(across));
        args.extend(saved.map(|saved| write("gates", saved.gates).rows(across)));
        args.extend(saved.and_then(|saved| saved.inverse).map(|inverse| write("inverse_rms", inverse)));
        let forward = Forward {
            rows: x.rows,
            cols: gate.rows,
            inner: x.cols,
            format: gate.part.format,
            two_terms: false,
            paired: true,
            norm: norm.is_some(),
        };
        let Shared { groups, mut constants } = product::along_both(r, forward);
        let kind = GatedForward {
            activation: activation.code(),
            bias: up.bias.is_some(),
            lora: lora.is_some(),
            save_for_backward: saved.is_some(),
        };
        constants.extend(kind.list());
        let mut params: Vec<(&str, Word)> = vec![
            ("rows", x.rows.into()),
            ("inner", x.cols.into()),
            ("cols", gate.rows.into()),
            ("stride", y.cols.into()),
            ("first_col", gate.first.into()),
            ("gate_row", gate.first_row.into()),
            ("up_row", up_row.into()),
        ];
        params.extend(norm.map(|norm| ("eps", Word::F32(norm.eps))));
        r.launch(Launch {
            kernel: "gated_forward",
            constants,
            params,
            args,
            groups,
            work: Work {
                flops: 4.0 * (x.cols * gate.rows) as f64,
                bytes: 4.0 * (x.cols + 3 * gate.rows) as f64,
            },
        });
    }
}

constants! {
    struct GatedBackward {
        activation: u32,
        lora: bool,
        others: bool,
    }
}

fn launch_gated_backward(
    r: &mut Recorder,
    dy: Tensor,
    down: &Linear,
    activation: Activation,
    term: Option<(Tensor, Tensor)>,
    gates: Tensor,
    dgates: Tensor,
) {
    // All pieces but the last are added up first.
    let (last, others) = down.weights.pieces.split_last().expect("a matrix has pieces");
    let cols = down.weights.cols;
    let sum = (!others.is_empty()).then(|| r.tensor("d gated", dy.rows, cols));
    for (i, piece) in others.iter().enumerate() {
        let accumulate = if i == 0 { Accumulate::Set } else { Accumulate::Add };
        let target = GradientTarget { tensor: sum.expect("others"), accumulate };
        launch_backward_input(r, dy, piece.first, *piece, 1.0, None, target);
    }
    let rank = term.map_or(0, |(g, _)| g.cols);
    let along = aligned(&[last.rows, rank, dy.cols, last.first]);
    let across = aligned(&[cols]);
    let mut args = vec![read("dy", dy).rows(along), read("w", last.part).rows(across)];
    args.extend(term.iter().flat_map(|(g, a)| [read("g", *g).rows(along), read("a", *a).rows(across)]));
    args.extend(sum.map(|sum| read("others", sum).rows(across)));
    args.extend([read("gates", gates).rows(across), write("dgates", dgates).rows(across)]);
    let mut params: Vec<(&str, Word)> = vec![
        ("rows", dy.rows.into()),
        ("inner", last.rows.into()),
        ("cols", cols.into()),
        ("stride", dy.cols.into()),
        ("first_col", last.first.into()),
        ("first_row", last.first_row.into()),
    ];
    params.extend(term.map(|_| ("rank", rank.into())));
    let kind = GatedBackward { activation: activation.code(), lora: term.is_some(), others: sum.is_some() };
    let Shared { groups, mut constants } =
        product::along_left(r, (dy.rows, cols), last.rows, last.part.format, kind.lora, true);
    constants.extend(kind.list());
    let terms = ((last.rows + rank) * cols) as f64;
    r.launch(Launch {
        kernel: "gated_backward",
        constants,
        params,
        args,
        groups,
        work: Work { flops: 2.0 * terms, bytes: 4.0 * (last.rows + rank + 4 * cols) as f64 },
    });
}
