//! Cases: feed-forward blocks, gated and not, with biases, LoRA terms and 16-bit weights.

use super::linear::{Term, merged};
use super::{Case, Input, beside, columns, gradients};
use crate::gpu::{Format, Recorder, Tensor};
use crate::ops::{Activation, FeedForward, Linear, Lora, Norm, NormKind, feed_forward};
use crate::reference::{self, NormWeights};

/// N, C, F; ranks of the LoRA terms on gate, up and down (without a gate: up and down); the scale of gates; the
/// weights' format.
#[derive(Clone, Copy)]
struct Size {
    n: usize,
    c: usize,
    f: usize,
    ranks: [usize; 3],
    scale: f32,
    format: Format,
    family: Family,
}

/// What a block has besides its matrices.
#[derive(Clone, Copy)]
struct Family {
    /// How rows are normalised; LayerNorm has a bias.
    norm: Option<NormKind>,
    gated: bool,
    activation: Activation,
    /// Whether both layers have a bias.
    bias: bool,
}

const LLAMA: Family =
    Family { norm: Some(NormKind::Rms), gated: true, activation: Activation::Silu, bias: false };

pub(super) fn cases() -> Vec<Case> {
    let size = |(n, c, f), ranks| Size { n, c, f, ranks, scale: 1.0, format: Format::F32, family: LLAMA };
    let mut sizes = vec![
        size((1, 1, 1), [0; 3]),
        size((13, 7, 17), [0; 3]),
        size((65, 64, 63), [0; 3]),
        size((67, 36, 172), [4, 0, 4]),
        size((33, 12, 20), [0, 3, 0]),
        // Large gates make exp overflow.
        Size { scale: 30.0, ..size((5, 8, 260), [4, 4, 8]) },
        size((2048, 64, 172), [0; 3]),
        SMALL,
        Size { format: Format::Bf16, ..size((65, 64, 72), [4, 4, 4]) },
    ];
    let layer = Family { norm: Some(NormKind::Layer), bias: true, ..LLAMA };
    let families = [
        // Gated by either GELU, as in Gemma, with 1 + weight.
        Family { norm: Some(NormKind::RmsUnitOffset), activation: Activation::GeluTanh, ..LLAMA },
        Family { activation: Activation::Gelu, bias: true, ..LLAMA },
        // Not gated: as in GPT-2, Phi and GPT-NeoX, and squared as in Primer.
        Family { gated: false, activation: Activation::GeluTanh, ..layer },
        Family { gated: false, activation: Activation::Gelu, ..layer },
        Family { gated: false, activation: Activation::ReluSquared, ..LLAMA },
        Family { norm: None, gated: false, activation: Activation::Silu, bias: true },
        layer,
        Family { norm: None, activation: Activation::ReluSquared, ..LLAMA },
    ];
    for family in families {
        sizes.push(Size { family, ..size((37, 12, 20), [0; 3]) });
        sizes.push(Size { family, ..size((7, 9, 33), [2, 3, 4]) });
    }
    sizes.push(Size { format: Format::F16, family: families[0], ..size((5, 16, 36), [0, 4, 4]) });
    sizes.push(Size { format: Format::F16, family: families[2], ..size((13, 16, 36), [4, 0, 4]) });
    sizes.push(Size { format: Format::Q8, family: families[2], ..size((3, 64, 128), [4, 0, 4]) });
    sizes.push(Size { format: Format::Q4, ..size((21, 128, 64), [0, 4, 4]) });
    sizes.into_iter().flat_map(cases_of).collect()
}

/// Blocks of SmolLM2 135M, Qwen 2.5 0.5B, Gemma 3 270M, Llama 3.2 1B and Pythia 410M.
pub(super) fn real_shapes() -> Vec<Case> {
    let size = |(n, c, f), format| Size { n, c, f, ranks: [0; 3], scale: 1.0, format, family: LLAMA };
    let gemma = Family { norm: Some(NormKind::RmsUnitOffset), activation: Activation::GeluTanh, ..LLAMA };
    let pythia =
        Family { norm: Some(NormKind::Layer), gated: false, activation: Activation::Gelu, bias: true };
    let sizes = [
        Size { ranks: [8; 3], ..size((9, 576, 1536), Format::F32) },
        size((3, 896, 4864), Format::F16),
        Size { family: gemma, ..size((40, 640, 2048), Format::F32) },
        Size { family: pythia, ..size((3, 1024, 4096), Format::F16) },
        size((2, 2048, 8192), Format::Bf16),
    ];
    // The largest shapes have only one case each.
    let wanted = |size: &Size, case: &Case| size.c < 2000 || case.kernel.ends_with("backward");
    let of = |size: Size| cases_of(size).into_iter().filter(move |case| wanted(&size, case));
    sizes.into_iter().flat_map(of).collect()
}

const SMALL: Size =
    Size { n: 13, c: 12, f: 20, ranks: [0, 3, 0], scale: 1.0, format: Format::F16, family: LLAMA };

/// A small block with LoRA terms.
pub(super) fn small_cases() -> Vec<Case> {
    cases_of(SMALL).into()
}

const EPS: f32 = 1e-3;

// Inputs, in this order; A and B of gate, up and down start at LORA.
const X: usize = 0;
const NORM_WEIGHT: usize = 1;
const UP: usize = 2;
const DOWN: usize = 3;
const DY: usize = 4;
const LORA: usize = 5;
const NORM_BIAS: usize = 11;
const UP_BIAS: usize = 12;
const DOWN_BIAS: usize = 13;
/// The inputs that may have a gradient.
const WATCHED: [usize; 13] = [
    X,
    NORM_WEIGHT,
    UP,
    DOWN,
    LORA,
    LORA + 1,
    LORA + 2,
    LORA + 3,
    LORA + 4,
    LORA + 5,
    NORM_BIAS,
    UP_BIAS,
    DOWN_BIAS,
];

impl Size {
    /// Columns between the two layers.
    fn width(&self) -> usize {
        if self.family.gated { 2 * self.f } else { self.f }
    }

    /// The LoRA terms of the first layer: index and first column.
    fn of_up(&self) -> impl Iterator<Item = (usize, usize)> {
        let (ranks, gated, f) = (self.ranks, self.family.gated, self.f);
        [(0, 0), (1, f)].into_iter().filter(move |(i, _)| ranks[*i] > 0 && (gated || *i == 0))
    }

    fn inputs(&self) -> Vec<Input> {
        let Size { n, c, f, ranks, scale, format, .. } = *self;
        let [rg, ru, rd] = ranks.map(|r: usize| r.max(1));
        let weight = |seed, rows, cols, scale| Input::weights(seed, rows, cols, scale).watched();
        vec![
            Input::normal(1, n, c, 1.0).live(0).watched(),
            weight(2, 1, c, 1.0),
            weight(3, self.width(), c, scale / (c as f32).sqrt()).stored(format),
            weight(4, c, f, 1.0).stored(format),
            Input::normal(5, n, c, 1.0).live(0),
            weight(6, rg, c, 0.3),
            weight(7, f, rg, 0.3),
            weight(8, ru, c, 0.3),
            weight(9, f, ru, 0.3),
            weight(10, rd, f, 0.3),
            weight(11, c, rd, 0.3),
            weight(12, 1, c, 1.0),
            weight(13, 1, self.width(), 0.5),
            weight(14, 1, c, 1.0),
        ]
    }

    fn record(&self, r: &mut Recorder, t: &[Tensor]) -> crate::error::Result<Tensor> {
        let Family { norm, gated, activation, bias } = self.family;
        let lora = |i: usize| Lora { a: t[LORA + 2 * i], b: t[LORA + 1 + 2 * i], scale: 0.5 };
        let of_norm = |kind| {
            let bias = (kind == NormKind::Layer).then_some(t[NORM_BIAS]);
            Norm { bias, kind, ..Norm::rms(t[NORM_WEIGHT], EPS) }
        };
        let block = FeedForward {
            norm: norm.map(of_norm),
            up: Linear {
                bias: bias.then_some(t[UP_BIAS]),
                lora: self.of_up().map(|(i, first)| (first, lora(i))).collect(),
                ..Linear::from(t[UP])
            },
            gated,
            activation,
            down: Linear {
                bias: bias.then_some(t[DOWN_BIAS]),
                lora: (self.ranks[2] > 0).then(|| (0, lora(2))).into_iter().collect(),
                ..Linear::from(t[DOWN])
            },
        };
        feed_forward(r, t[X], &block, Some(t[X]))
    }

    /// The LoRA terms of the first layer and of the second.
    fn terms<'a>(&self, v: &'a [Vec<f64>]) -> [Vec<Term<'a>>; 2] {
        let term = |(i, first): (usize, usize)| Term {
            first,
            a: &v[LORA + 2 * i],
            b: &v[LORA + 1 + 2 * i],
            scale: 0.5,
        };
        [self.of_up().map(term).collect(), (self.ranks[2] > 0).then(|| term((2, 0))).into_iter().collect()]
    }
}

fn norm_of<'a>(v: &'a [Vec<f64>], kind: NormKind) -> NormWeights<'a> {
    let bias = (kind == NormKind::Layer).then_some(&v[NORM_BIAS][..]);
    NormWeights { weight: &v[NORM_WEIGHT], bias, eps: EPS as f64, kind }
}

/// The results of `reference` for the block, step by step.
struct Expected {
    /// The matrices with their LoRA terms merged.
    up: Vec<f64>,
    down: Vec<f64>,
    normed: Vec<f64>,
    /// The output of the first layer.
    gates: Vec<f64>,
    inner: Vec<f64>,
    y: Vec<f64>,
}

fn expected(v: &[Vec<f64>], size: &Size) -> Expected {
    let Size { n, c, f, family, .. } = *size;
    let [of_up, of_down] = size.terms(v);
    let (up, down) = (merged(&v[UP], c, &of_up), merged(&v[DOWN], f, &of_down));
    let normed = match family.norm {
        Some(kind) => reference::norm_forward(&v[X], norm_of(v, kind)),
        None => v[X].clone(),
    };
    let with_bias = |y: Vec<f64>, bias: usize| match family.bias {
        true => reference::linear_bias(&y, &v[bias]),
        false => y,
    };
    let gates = with_bias(reference::linear_forward(&normed, &up, n, c, size.width()), UP_BIAS);
    let inner = match family.gated {
        true => {
            let [gate, up] = halves(&gates, f);
            reference::gated_activation_forward(&gate, &up, family.activation)
        }
        false => reference::activation_forward(&gates, family.activation),
    };
    let y = with_bias(reference::linear_forward(&inner, &down, n, f, c), DOWN_BIAS);
    let y = reference::residual_add(&y, &v[X]);
    Expected { up, down, normed, gates, inner, y }
}

fn halves(gates: &[f64], f: usize) -> [Vec<f64>; 2] {
    [0, f].map(|first| columns(gates, 2 * f, first..first + f))
}

/// The gradients of the inputs that have one, in the order of [`WATCHED`].
fn expected_gradients(v: &[Vec<f64>], size: &Size) -> Vec<Vec<f64>> {
    let Size { n, c, f, family, .. } = *size;
    let e = expected(v, size);
    let [of_up, of_down] = size.terms(v);
    let dy = &v[DY];
    let ddown = reference::linear_backward_weight(dy, &e.inner, n, f, c);
    let dinner = reference::linear_backward_input(dy, &e.down, n, f, c);
    let dgates = match family.gated {
        true => {
            let [gate, up] = halves(&e.gates, f);
            let (dgate, dup) = reference::gated_activation_backward(&gate, &up, family.activation, &dinner);
            beside(&[(&dgate, f), (&dup, f)])
        }
        false => reference::activation_backward(&e.gates, family.activation, &dinner),
    };
    let dup = reference::linear_backward_weight(&dgates, &e.normed, n, c, size.width());
    let dnormed = reference::linear_backward_input(&dgates, &e.up, n, c, size.width());
    let (dx, of_norm) = match family.norm {
        Some(kind) => {
            let d = reference::norm_backward(&v[X], norm_of(v, kind), &dnormed);
            (d.dx, Some((d.dweight, (kind == NormKind::Layer).then_some(d.dbias))))
        }
        None => (dnormed, None),
    };
    let (dweight, of_norm_bias) = of_norm.unzip();
    let low: Vec<_> = of_up.iter().flat_map(|term| term.gradients(&dup, c)).collect();
    let low = low.into_iter().chain(of_down.iter().flat_map(|term| term.gradients(&ddown, f)));
    let of_bias = family.bias.then(|| {
        [reference::linear_backward_bias(&dgates, size.width()), reference::linear_backward_bias(dy, c)]
    });
    let matrices = (size.format == Format::F32).then(|| [dup.clone(), ddown.clone()]);
    let first = [reference::residual_add(&dx, dy)].into_iter().chain(dweight);
    let rest = low.chain(of_norm_bias.flatten()).chain(of_bias.into_iter().flatten());
    first.chain(matrices.into_iter().flatten()).chain(rest).collect()
}

fn cases_of(size: Size) -> [Case; 2] {
    let Size { n, c, f, ranks, format, family, .. } = size;
    let shape = format!("N {n} C {c} F {f} R {ranks:?} {format:?}{family}");
    let forward = Case::new(
        "feed_forward_forward",
        &shape,
        size.inputs(),
        move |r, t| Ok(vec![size.record(r, t)?]),
        move |v| vec![expected(v, &size).y],
    );
    let backward = Case::new(
        "feed_forward_backward",
        &shape,
        size.inputs(),
        move |r, t| {
            let y = size.record(r, t)?;
            r.backward(&[(y, t[DY])])?;
            Ok(gradients(r, &WATCHED.map(|i| t[i])))
        },
        move |v| expected_gradients(v, &size),
    );
    [forward, backward]
}

impl std::fmt::Display for Family {
    /// The differences from a Llama block.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.norm {
            Some(NormKind::Rms) => {}
            Some(kind) => write!(f, " {kind:?}")?,
            None => f.write_str(" no norm")?,
        }
        if self.bias {
            f.write_str(" bias")?;
        }
        if !self.gated {
            f.write_str(" not gated")?;
        }
        match self.activation {
            Activation::Silu => Ok(()),
            activation => write!(f, " {activation:?}"),
        }
    }
}
