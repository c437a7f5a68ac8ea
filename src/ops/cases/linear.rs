//! Cases: linear layers.

use super::{Case, Input, gradients, twice};
use crate::gpu::{Format, Recorder, Tensor};
use crate::ops::{Linear, Lora, Matrix, linear, merge_lora, residual_add};
use crate::reference;

/// A LoRA term of a matrix W (O, I) in the cases of blocks: scale B A is added to W's rows from `first` on.
pub(super) struct Term<'a> {
    pub first: usize,
    /// A (R, I).
    pub a: &'a [f64],
    /// B (rows, R).
    pub b: &'a [f64],
    pub scale: f64,
}

impl Term<'_> {
    /// dA = scale Bᵀ dW and dB = scale dW Aᵀ, from these rows of dW.
    pub fn gradients(&self, dw: &[f64], i: usize) -> [Vec<f64>; 2] {
        let rank = self.a.len() / i;
        let rows = self.b.len() / rank;
        let dw: Vec<f64> =
            dw[self.first * i..(self.first + rows) * i].iter().map(|d| self.scale * d).collect();
        let da = reference::linear_backward_weight(self.b, &dw, rows, i, rank);
        [da, reference::linear_forward(&dw, self.a, rows, i, rank)]
    }
}

/// Returns W with its LoRA terms merged.
pub(super) fn merged(w: &[f64], i: usize, terms: &[Term]) -> Vec<f64> {
    let mut w = w.to_vec();
    for term in terms {
        let rank = term.a.len() / i;
        let rows = term.b.len() / rank;
        let product = reference::linear_backward_input(term.b, term.a, rows, i, rank);
        for (w, p) in w[term.first * i..].iter_mut().zip(product) {
            *w += term.scale * p;
        }
    }
    w
}

/// The sum of the scaled `terms`.
fn combine(terms: &[(f64, &[f64])]) -> Vec<f64> {
    (0..terms[0].1.len()).map(|i| terms.iter().map(|(scale, v)| scale * v[i]).sum()).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // One, a prime, sizes around the tile of 8 and the 64 lanes; weights in parts; many rows, summed in slices.
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
        // Recorded twice, so that the second gradients are added to the first.
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
        // With the LoRA term, with the residual, with both.
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
    // Everything combined: matrices in parts, a bias, LoRA terms on some of the columns, a residual.
    let layers: [Layer; 8] = [
        Layer { n: 1, i: 1, parts: &[1], terms: &[], bias: true, residual: false },
        Layer { n: 13, i: 7, parts: &[17], terms: &[], bias: true, residual: true },
        Layer { n: 65, i: 64, parts: &[64], terms: &[(0, 32, 4), (32, 32, 8)], bias: true, residual: true },
        Layer {
            n: 67,
            i: 36,
            parts: &[12, 20, 8],
            terms: &[(0, 12, 3), (32, 8, 4)],
            bias: true,
            residual: true,
        },
        Layer { n: 5, i: 8, parts: &[33], terms: &[(7, 11, 2)], bias: false, residual: true },
        Layer { n: 257, i: 12, parts: &[16, 45], terms: &[(0, 61, 3)], bias: true, residual: false },
        // A GPU computes 8 rows column by column.
        Layer {
            n: 3,
            i: 64,
            parts: &[96, 32],
            terms: &[(0, 64, 4), (96, 32, 4)],
            bias: true,
            residual: true,
        },
        Layer { n: 1030, i: 20, parts: &[24], terms: &[(4, 8, 4), (12, 12, 1)], bias: true, residual: false },
    ];
    out.extend(layers.into_iter().flat_map(Layer::cases));
    out.extend([(1, &[1][..], 1), (7, &[13, 9], 3), (64, &[130], 8)].map(merge_case));
    // Frozen matrices of 16 bits, and in blocks of integers: the numbers are rounded, the products are f32.
    for (format, widths) in [
        (Format::F16, [4, 12, 64, 132]),
        (Format::Bf16, [4, 12, 64, 132]),
        (Format::Q8, [64, 128, 64, 192]),
        (Format::Q4, [64, 128, 64, 192]),
    ] {
        let shapes = [(1, &[40][..]), (13, &[17, 8]), (65, &[64]), (131, &[93])];
        for ((n, parts), i) in shapes.into_iter().zip(widths) {
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
    // Rows far beyond the range of f16: all elements large, or with elements of ordinary size among them; weights up to
    // the largest f16.
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

/// Layers of SmolLM2, Gemma 3, Qwen 2.5, Llama 3.2 and Phi 3, with few rows and with several tiles of rows.
pub(super) fn real_shapes() -> Vec<Case> {
    let shapes = [
        (1, 576, 960, Format::F32),
        (70, 576, 1536, Format::F32),
        (5, 1536, 576, Format::F32),
        (3, 640, 4096, Format::F32),
        (2, 896, 9728, Format::F16),
        (33, 4864, 896, Format::Bf16),
        (2, 1152, 13824, Format::Bf16),
        (40, 2048, 3072, Format::F16),
        (2, 8192, 2048, Format::F32),
        (9, 3072, 9216, Format::F16),
        (1, 576, 1536, Format::Q8),
        (35, 896, 4864, Format::Q4),
        (4, 2048, 2048, Format::Q4),
    ];
    shapes.into_iter().map(real_case).collect()
}

/// Forward and backward in one case: the product of the rows, and the gradients of both operands.
fn real_case((n, i, o, format): (usize, usize, usize, Format)) -> Case {
    let inputs = vec![
        Input::normal(1, n, i, 1.0).live(0).watched(),
        Input::weights(2, o, i, 1.0).watched().stored(format),
        Input::normal(3, n, o, 1.0).live(0),
    ];
    Case::new(
        "linear_backward",
        format!("N {n} I {i} O {o} {format:?}, and y"),
        inputs,
        |r, t| {
            let y = linear(r, t[0], &t[1].into(), None)?;
            r.backward(&[(y, t[2])])?;
            Ok([y].into_iter().chain(gradients(r, &t[..2])).collect())
        },
        move |v| {
            let y = reference::linear_forward(&v[0], &v[1], n, i, o);
            let dw = || reference::linear_backward_weight(&v[2], &v[0], n, i, o);
            let dx = reference::linear_backward_input(&v[2], &v[1], n, i, o);
            [y, dx].into_iter().chain((format == Format::F32).then(dw)).collect()
        },
    )
    .within(super::FORWARD)
}

/// A layer with every optional part.
#[derive(Clone, Copy)]
struct Layer {
    n: usize,
    i: usize,
    /// Rows of the matrix's parts.
    parts: &'static [usize],
    /// LoRA terms: first column, number of columns, rank.
    terms: &'static [(usize, usize, usize)],
    bias: bool,
    residual: bool,
}

impl Layer {
    // Inputs: these, the parts of the matrix, then A and B of every term.
    const X: usize = 0;
    const DY: usize = 1;
    const BIAS: usize = 2;
    const RESIDUAL: usize = 3;
    const PARTS: usize = 4;

    fn outputs(&self) -> usize {
        self.parts.iter().sum()
    }

    fn inputs(&self) -> Vec<Input> {
        let (n, i, o) = (self.n, self.i, self.outputs());
        let mut out = vec![
            Input::normal(1, n, i, 1.0).live(0).watched(),
            Input::normal(2, n, o, 1.0).live(0),
            Input::normal(3, 1, o, 1.0).watched(),
            Input::normal(4, n, o, 1.0).live(0).watched(),
        ];
        let mut weight = |rows, cols, scale| {
            out.push(Input::normal(out.len() as u32 + 1, rows, cols, scale).watched());
        };
        self.parts.iter().for_each(|rows| weight(*rows, i, 1.0));
        for (_, cols, rank) in self.terms {
            weight(*rank, i, 0.5);
            weight(*cols, *rank, 0.5);
        }
        out
    }

    fn record(&self, r: &mut Recorder, t: &[Tensor]) -> crate::error::Result<Tensor> {
        let (parts, low) = t[Layer::PARTS..].split_at(self.parts.len());
        let term = |(k, (first, _, _)): (usize, &(usize, usize, usize))| {
            (*first, Lora { a: low[2 * k], b: low[2 * k + 1], scale: 0.5 })
        };
        let w = Linear {
            weights: Matrix::new(parts.to_vec()),
            bias: self.bias.then_some(t[Layer::BIAS]),
            lora: self.terms.iter().enumerate().map(term).collect(),
        };
        linear(r, t[Layer::X], &w, self.residual.then_some(t[Layer::RESIDUAL]))
    }

    /// Returns the matrix and its LoRA terms, for `reference`.
    fn reference_terms<'a>(&self, v: &'a [Vec<f64>]) -> (Vec<f64>, Vec<Term<'a>>) {
        let (parts, low) = v[Layer::PARTS..].split_at(self.parts.len());
        let term = |(k, (first, _, _)): (usize, &(usize, usize, usize))| Term {
            first: *first,
            a: &low[2 * k],
            b: &low[2 * k + 1],
            scale: 0.5,
        };
        let terms: Vec<Term> = self.terms.iter().enumerate().map(term).collect();
        (merged(&parts.concat(), self.i, &terms), terms)
    }

    fn cases(self) -> [Case; 2] {
        let (n, i, o) = (self.n, self.i, self.outputs());
        let Layer { parts, terms, bias, residual, .. } = self;
        let mut shape = format!("N {n} I {i} O {parts:?} LoRA {terms:?}");
        for (there, name) in [(bias, "bias"), (residual, "residual")] {
            shape.push_str(if there { " " } else { " no " });
            shape.push_str(name);
        }
        let forward = Case::new(
            "linear_forward",
            &shape,
            self.inputs(),
            move |r, t| Ok(vec![self.record(r, t)?]),
            move |v| {
                let mut y = reference::linear_forward(&v[Layer::X], &self.reference_terms(v).0, n, i, o);
                if bias {
                    y = reference::linear_bias(&y, &v[Layer::BIAS]);
                }
                vec![if residual { reference::residual_add(&y, &v[Layer::RESIDUAL]) } else { y }]
            },
        );
        // Recorded twice, so that the second gradients are added to the first.
        let backward = Case::new(
            "linear_backward",
            &shape,
            self.inputs(),
            move |r, t| {
                let (y, z) = (self.record(r, t)?, self.record(r, t)?);
                let sum = residual_add(r, y, z)?;
                r.backward(&[(sum, t[Layer::DY])])?;
                Ok(gradients(r, &[&t[..Layer::DY], &t[Layer::BIAS..]].concat()))
            },
            move |v| {
                let (w, terms) = self.reference_terms(v);
                let dy = &v[Layer::DY];
                let dx = reference::linear_backward_input(dy, &w, n, i, o);
                let dw = reference::linear_backward_weight(dy, &v[Layer::X], n, i, o);
                let dbias = bias.then(|| reference::linear_backward_bias(dy, o));
                let mut all: Vec<Vec<f64>> =
                    [dx].into_iter().chain(dbias).chain(residual.then(|| dy.clone())).collect();
                let mut first = 0;
                for rows in parts {
                    all.push(dw[first * i..(first + rows) * i].to_vec());
                    first += rows;
                }
                all.extend(terms.iter().flat_map(|term| term.gradients(&dw, i)));
                all.iter().map(|d| twice(d)).collect()
            },
        );
        [forward, backward]
    }
}

/// A matrix in parts into which a LoRA term is merged in place.
fn merge_case((i, parts, rank): (usize, &'static [usize], usize)) -> Case {
    let o: usize = parts.iter().sum();
    let mut inputs = vec![Input::normal(1, rank, i, 1.0), Input::normal(2, rank, o, 1.0)];
    inputs.extend(parts.iter().map(|rows| Input::normal(3 + *rows as u32, *rows, i, 1.0)));
    Case::new(
        "merge_lora",
        format!("I {i} O {parts:?} R {rank}"),
        inputs,
        |r, t| {
            merge_lora(r, &Matrix::new(t[2..].to_vec()), t[0], t[1], 0.5);
            Ok(t[2..].to_vec())
        },
        move |v| {
            // B is transposed.
            let b: Vec<f64> = (0..o * rank).map(|at| v[1][at % rank * o + at / rank]).collect();
            let w = merged(&v[2..].concat(), i, &[Term { first: 0, a: &v[0], b: &b, scale: 0.5 }]);
            let firsts = parts.iter().scan(0, |end, rows| {
                *end += rows;
                Some((*end - rows) * i..*end * i)
            });
            firsts.map(|rows| w[rows].to_vec()).collect()
        },
    )
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
