//! Cases of self-attention: blocks of several model families, trees, caches, LoRA terms and 16-bit weights.

use super::attention::{Tree, join, position, reference_spans, split, trees};
use super::linear::{Term, merged};
use super::{Case, Input, gradients};
use crate::gpu::{Format, Recorder, Tensor};
use crate::ops::{
    AttentionShape, KeySource, Linear, Lora, Norm, NormKind, Rotary, SelfAttention, rope_table,
    self_attention,
};
use crate::reference::{self, NormWeights, NormedHeads};

/// What a block has besides its matrices.
#[derive(Clone, Copy)]
struct Family {
    /// How rows are normalised; LayerNorm has a bias.
    norm: Option<NormKind>,
    /// Whether queries, keys and values have a bias.
    bias: bool,
    head_norms: Option<NormKind>,
    /// Rotated elements per head, and whether neighbouring elements form a pair.
    rotary: Option<(usize, bool)>,
    soft_cap: Option<f32>,
    window: Option<usize>,
}

/// A case's size: N rows in trees and rows that no later row attends to; C; the heads; ranks of the LoRA terms on q, k
/// and v.
#[derive(Clone, Copy)]
struct Size {
    trees: &'static [Tree],
    empty: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ranks: [usize; 3],
    /// The format of the matrix.
    format: Format,
    family: Family,
}

const EPS: f32 = 1e-3;

// Inputs, in this order; A and B of q, k and v start at LORA.
const X: usize = 0;
const NORM_WEIGHT: usize = 1;
const QKV: usize = 2;
const SPANS: usize = 3;
const ENDS: usize = 4;
const TABLE: usize = 5;
const DOUT: usize = 6;
const LORA: usize = 7;
const NORM_BIAS: usize = 13;
const BIAS: usize = 14;
const QUERY_NORM: usize = 15;
const KEY_NORM: usize = 16;
/// The additional input of an `after_case`.
const KNOWN: usize = 17;
const KNOWN_SPANS: usize = 18;
/// The inputs that may have a gradient.
const WATCHED: [usize; 13] = [
    X,
    NORM_WEIGHT,
    QKV,
    LORA,
    LORA + 1,
    LORA + 2,
    LORA + 3,
    LORA + 4,
    LORA + 5,
    NORM_BIAS,
    BIAS,
    QUERY_NORM,
    KEY_NORM,
];

impl Size {
    fn shape(&self) -> AttentionShape {
        let Family { soft_cap, window, .. } = self.family;
        AttentionShape { soft_cap, window, ..AttentionShape::new(self.heads, self.kv_heads, self.head_dim) }
    }

    /// Radians per position of each rotated pair.
    fn inv_freq(&self) -> Vec<f64> {
        let rotated = self.family.rotary.map_or(0, |(rotated, _)| rotated);
        (0..rotated / 2).map(|j| 1e4f64.powf(-2.0 * j as f64 / rotated as f64)).collect()
    }

    /// The first columns of queries, keys and values, and the end of the values.
    fn firsts(&self) -> [usize; 4] {
        let (keys, width) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        [0, keys, keys + width, keys + 2 * width]
    }

    fn table(&self, positions: usize) -> Input {
        let inv_freq = self.inv_freq();
        match inv_freq.len() {
            0 => Input::f32(vec![0.0], 1, 1),
            pairs => Input::f32(rope_table(&inv_freq, 1.0, positions), positions, 2 * pairs),
        }
    }

    fn inputs(&self, spans: &[u32], ends: &[u32], watched: bool) -> Vec<Input> {
        let watch = |input: Input| if watched { input.watched() } else { input };
        let Size { hidden: c, heads, kv_heads, head_dim: d, ranks, .. } = *self;
        let n = ends.len();
        let positions = spans.chunks(4).map(|s| s[1] - s[0] + s[3] - s[2]).max().unwrap_or(1).max(1) as usize;
        let outputs = self.shape().columns();
        // Keeps the size of scores independent of the head size.
        let spread = 1.5 * (8.0 / d as f32).powf(0.25) / (c as f32).sqrt();
        let mut out = vec![
            watch(Input::normal(1, n, c, 1.0).live(0)),
            watch(Input::normal(2, 1, c, 1.0)),
            watch(Input::weights(3, outputs, c, spread)).stored(self.format),
            Input::u32(spans.to_vec(), n, 4).live(0),
            Input::u32(ends.to_vec(), n, 1).live(0),
            self.table(positions),
            Input::normal(4, n, heads * d, 1.0).live(0),
        ];
        for (i, (rank, heads)) in ranks.into_iter().zip([heads, kv_heads, kv_heads]).enumerate() {
            out.push(watch(Input::normal(5 + 2 * i as u32, rank.max(1), c, 0.3)));
            out.push(watch(Input::normal(6 + 2 * i as u32, heads * d, rank.max(1), 0.3)));
        }
        for (seed, cols) in [(11, c), (12, outputs), (13, d), (14, d)] {
            out.push(watch(Input::normal(seed, 1, cols, 1.0)));
        }
        out
    }

    fn block(&self, t: &[Tensor]) -> SelfAttention {
        let Family { norm, bias, head_norms, rotary, .. } = self.family;
        let of = |kind, weight| Norm { kind, ..Norm::rms(weight, EPS) };
        let with_bias = |kind| (kind == NormKind::Layer).then_some(t[NORM_BIAS]);
        let term = |i: usize| {
            let lora = Lora { a: t[LORA + 2 * i], b: t[LORA + 1 + 2 * i], scale: 0.5 };
            (self.firsts()[i], lora)
        };
        SelfAttention {
            norm: norm.map(|kind| Norm { bias: with_bias(kind), ..of(kind, t[NORM_WEIGHT]) }),
            qkv: Linear {
                bias: bias.then_some(t[BIAS]),
                lora: (0..3).filter(|i| self.ranks[*i] > 0).map(term).collect(),
                ..Linear::from(t[QKV])
            },
            head_norms: head_norms.map(|kind| [of(kind, t[QUERY_NORM]), of(kind, t[KEY_NORM])]),
            rotary: rotary.map(|(rotated, interleaved)| Rotary { table: t[TABLE], rotated, interleaved }),
            shape: self.shape(),
        }
    }

    fn terms<'a>(&self, v: &'a [Vec<f64>]) -> Vec<Term<'a>> {
        let term = |i: usize| Term {
            first: self.firsts()[i],
            a: &v[LORA + 2 * i],
            b: &v[LORA + 1 + 2 * i],
            scale: 0.5,
        };
        (0..3).filter(|i| self.ranks[*i] > 0).map(term).collect()
    }
}

/// The normalisation of rows, for `reference`.
fn norm_of<'a>(v: &'a [Vec<f64>], kind: NormKind) -> NormWeights<'a> {
    let bias = (kind == NormKind::Layer).then_some(&v[NORM_BIAS][..]);
    NormWeights { weight: &v[NORM_WEIGHT], bias, eps: EPS as f64, kind }
}

/// The results of `reference` for the block, step by step.
struct Expected {
    /// The matrix with its LoRA terms merged.
    weights: Vec<f64>,
    normed: Vec<f64>,
    /// Queries, keys and values before head normalisation.
    projected: Vec<f64>,
    qkv: [Vec<f64>; 3],
    out: Vec<f64>,
    lse: Vec<f64>,
}

fn head_norms<'a>(v: &'a [Vec<f64>], size: &Size, kind: NormKind) -> [NormedHeads<'a>; 2] {
    let of = |weight: usize, first: usize, heads: usize| {
        let norm = NormWeights { kind, ..NormWeights::rms(&v[weight], EPS as f64) };
        NormedHeads { first, heads, norm }
    };
    [of(QUERY_NORM, 0, size.heads), of(KEY_NORM, size.firsts()[1], size.kv_heads)]
}

/// Rotates queries and keys, or rotates their gradients back.
fn rotate(q: [&[f64]; 2], v: &[Vec<f64>], size: &Size, backward: bool) -> [Vec<f64>; 2] {
    let positions: Vec<u32> = reference_spans(&v[SPANS]).iter().map(position).collect();
    let interleaved = size.family.rotary.is_some_and(|(_, interleaved)| interleaved);
    let rotate = if backward { reference::rotary_backward } else { reference::rotary_forward };
    let of = |x, heads| rotate(x, &positions, &size.inv_freq(), heads, size.head_dim, interleaved);
    [of(q[0], size.heads), of(q[1], size.kv_heads)]
}

fn expected(v: &[Vec<f64>], size: &Size, n: usize) -> Expected {
    let (c, shape) = (size.hidden, size.shape());
    let weights = merged(&v[QKV], c, &size.terms(v));
    let normed = match size.family.norm {
        Some(kind) => reference::norm_forward(&v[X], norm_of(v, kind)),
        None => v[X].clone(),
    };
    let mut projected = reference::linear_forward(&normed, &weights, n, c, shape.columns());
    if size.family.bias {
        projected = reference::linear_bias(&projected, &v[BIAS]);
    }
    let with_norms = match size.family.head_norms {
        Some(kind) => reference::head_norm_forward(&projected, shape.columns(), &head_norms(v, size, kind)),
        None => projected.clone(),
    };
    let [q, k, value] = split(&with_norms, shape);
    let [q, k] = rotate([&q, &k], v, size, false);
    let (out, lse) = reference::attention_forward(&q, &k, &value, &reference_spans(&v[SPANS]), shape);
    Expected { weights, normed, projected, qkv: [q, k, value], out, lse }
}

/// The gradients of the inputs that have one, in the order of [`WATCHED`].
fn expected_gradients(v: &[Vec<f64>], size: &Size, n: usize) -> Vec<Vec<f64>> {
    let (c, shape, family) = (size.hidden, size.shape(), size.family);
    let e = expected(v, size, n);
    let [q, k, value] = &e.qkv;
    let spans = reference_spans(&v[SPANS]);
    let (dq, dk, dv) = reference::attention_backward(q, k, value, &spans, &e.out, &e.lse, &v[DOUT], shape);
    let [dq, dk] = rotate([&dq, &dk], v, size, true);
    let mut dy = join([&dq, &dk, &dv], shape);
    let mut of_head_norms = Vec::new();
    if let Some(kind) = family.head_norms {
        let parts = head_norms(v, size, kind);
        let (dx, weights) = reference::head_norm_backward(&e.projected, shape.columns(), &parts, &dy);
        dy = dx;
        of_head_norms = weights.into_iter().map(|[dweight, _]| dweight).collect();
    }
    let dw = reference::linear_backward_weight(&dy, &e.normed, n, c, shape.columns());
    let low: Vec<_> = size.terms(v).iter().flat_map(|term| term.gradients(&dw, c)).collect();
    let dbias = family.bias.then(|| reference::linear_backward_bias(&dy, shape.columns()));
    let dnormed = reference::linear_backward_input(&dy, &e.weights, n, c, shape.columns());
    let (dx, of_norm) = match family.norm {
        Some(kind) => {
            let d = reference::norm_backward(&v[X], norm_of(v, kind), &dnormed);
            (d.dx, Some((d.dweight, (kind == NormKind::Layer).then_some(d.dbias))))
        }
        None => (dnormed, None),
    };
    let (dweight, of_norm_bias) = of_norm.unzip();
    let dw = (size.format == Format::F32).then_some(dw);
    let first = [Some(dx), dweight, dw].into_iter().flatten();
    first.chain(low).chain(of_norm_bias.flatten()).chain(dbias).chain(of_head_norms).collect()
}

/// Trees after `known` rows that are stored in a cache. `reference` computes those again for every tree.
fn after_case(name: &str, size: Size, known: usize, rest: &'static [Tree]) -> Case {
    let shape = size.shape();
    let AttentionShape { kv_heads, head_dim, .. } = shape;
    let (known_spans, _) = trees(&[(known, &[])]);
    let (spans, ends) = trees(rest);
    let whole: Vec<Tree> = rest.iter().map(|(prompt, responses)| (known + prompt, *responses)).collect();
    let (whole_spans, whole_ends) = trees(&whole);
    let positions = whole_ends.len();
    let mut inputs = size.inputs(&spans, &ends, false);
    inputs[TABLE] = size.table(positions);
    inputs.push(Input::normal(20, known, size.hidden, 1.0).live(1));
    inputs.push(Input::u32(known_spans, known, 4).live(1));
    Case::new(
        "self_attention_after",
        name,
        inputs,
        move |r, t| {
            let (x, spans, block) = (t[KNOWN], t[KNOWN_SPANS], size.block(t));
            let kv = r.tensor("cache", x.rows, 2 * kv_heads * head_dim);
            self_attention(r, x, &block, spans, KeySource::Cache { kv, apart: false })?;
            let keys = KeySource::After { kv, keys: x.rows };
            Ok(vec![self_attention(r, t[X], &block, t[SPANS], keys)?])
        },
        move |v| {
            let (c, mut x, mut own, mut first) = (size.hidden, Vec::new(), Vec::new(), 0);
            for (prompt, responses) in rest {
                x.extend(&v[KNOWN]);
                let rows = prompt + responses.iter().sum::<usize>();
                own.extend(x.len() / c..x.len() / c + rows);
                x.extend(&v[X][first * c..(first + rows) * c]);
                first += rows;
            }
            let mut v = v.to_vec();
            v[X] = x;
            v[SPANS] = whole_spans.iter().map(|s| *s as f64).collect();
            let out = expected(&v, &size, positions).out;
            let cols = shape.heads * head_dim;
            vec![own.iter().flat_map(|row: &usize| out[row * cols..(row + 1) * cols].to_vec()).collect()]
        },
    )
}

impl Size {
    /// A Llama block: RMSNorm, whole heads rotated in halves.
    fn new(
        trees: &'static [Tree],
        empty: usize,
        hidden: usize,
        (heads, kv_heads, head_dim): (usize, usize, usize),
        ranks: [usize; 3],
    ) -> Size {
        let family = Family {
            norm: Some(NormKind::Rms),
            bias: false,
            head_norms: None,
            rotary: Some((head_dim, false)),
            soft_cap: None,
            window: None,
        };
        Size { trees, empty, hidden, heads, kv_heads, head_dim, ranks, format: Format::F32, family }
    }

    fn with(self, change: impl FnOnce(Family) -> Family) -> Size {
        Size { family: change(self.family), ..self }
    }
}

/// Trees, a cache and rows after it, at a small shape.
pub(super) fn small_cases() -> Vec<Case> {
    cases_of(Size::new(&[(9, &[]), (5, &[3, 4])], 0, 12, (2, 1, 8), [0; 3]))
}

pub(super) fn cases() -> Vec<Case> {
    const BATCH: [Tree; 16] = [(128, &[]); 16];
    const AFTER: [Tree; 3] = [(9, &[]), (5, &[3, 4]), (11, &[])];
    let size = Size::new;
    let family = |heads, ranks, change: fn(Family) -> Family| size(&AFTER, 0, 12, heads, ranks).with(change);
    let sizes: [Size; 22] = [
        size(&[(1, &[])], 0, 1, (1, 1, 8), [0; 3]),
        size(&[(5, &[3, 4])], 2, 12, (4, 2, 8), [4, 0, 4]),
        size(&[(31, &[33, 1]), (2, &[])], 0, 33, (6, 1, 16), [0, 3, 0]),
        size(&[(63, &[]), (1, &[1, 1]), (17, &[5, 64])], 1, 20, (3, 3, 24), [0; 3]),
        size(&[(67, &[13])], 0, 16, (2, 1, 64), [8, 4, 4]),
        size(&[(7, &[3, 11])], 0, 8, (2, 2, 8), [0; 3]),
        size(&[(9, &[]), (5, &[3, 4]), (1, &[1]), (70, &[])], 0, 12, (4, 2, 8), [4, 0, 4]),
        size(&BATCH, 0, 64, (8, 4, 8), [0; 3]),
        // Frozen weights of 16 bits, and in blocks of integers.
        Size { format: Format::F16, ..size(&[(5, &[3, 4])], 2, 12, (4, 2, 8), [4, 0, 4]) },
        Size { format: Format::Bf16, ..size(&[(7, &[3, 11])], 0, 16, (2, 1, 8), [0; 3]) },
        Size { format: Format::Q8, ..size(&[(7, &[3, 11])], 0, 64, (4, 2, 16), [4, 0, 4]) },
        Size { format: Format::Q4, ..size(&[(5, &[3, 4])], 2, 128, (8, 1, 8), [0, 4, 4]) },
        // A bias as in Qwen 2, without and with LoRA terms.
        family((4, 2, 8), [0; 3], |f| Family { bias: true, ..f }),
        family((4, 2, 8), [4, 0, 4], |f| Family { bias: true, ..f }),
        // Normalised heads as in Qwen 3; with windows and 1 + weight as in Gemma 3; with soft caps as in Gemma 2.
        family((4, 2, 8), [0, 3, 4], |f| Family { head_norms: Some(NormKind::Rms), ..f }),
        family((4, 1, 16), [0; 3], |f| {
            let kind = Some(NormKind::RmsUnitOffset);
            Family { norm: kind, head_norms: kind, window: Some(6), ..f }
        }),
        family((2, 1, 16), [4, 4, 4], |f| Family {
            norm: Some(NormKind::RmsUnitOffset),
            soft_cap: Some(2.0),
            window: Some(9),
            ..f
        }),
        // No rotation, as in GPT-2 and in some layers of SmolLM 3.
        family((2, 2, 8), [4, 0, 0], |f| Family {
            norm: Some(NormKind::Layer),
            bias: true,
            rotary: None,
            ..f
        }),
        family((4, 1, 8), [0; 3], |f| Family { rotary: None, ..f }),
        // Part of each head rotated, as in Phi 2 and GPT-NeoX; neighbouring pairs, as in GPT-J; whole heads after a
        // LayerNorm.
        family((2, 2, 16), [0; 3], |f| Family {
            norm: Some(NormKind::Layer),
            bias: true,
            rotary: Some((6, false)),
            ..f
        }),
        family((2, 1, 16), [3, 0, 3], |f| Family { rotary: Some((8, true)), ..f }),
        family((3, 1, 8), [0; 3], |f| Family { norm: Some(NormKind::Layer), bias: true, ..f }),
    ];
    let no_norm = family((2, 1, 8), [4, 0, 4], |f| Family { norm: None, bias: true, ..f });
    sizes.into_iter().chain([no_norm]).flat_map(cases_of).collect()
}

/// Blocks of SmolLM2 135M, Qwen 2.5 0.5B, Qwen 3 0.6B, Gemma 3 270M, Phi 2 and Phi 3 Mini.
pub(super) fn real_shapes() -> Vec<Case> {
    const TREES: [Tree; 2] = [(5, &[]), (7, &[4, 3])];
    let size = |hidden, heads, ranks| Size::new(&TREES, 0, hidden, heads, ranks);
    let unit_offset = Some(NormKind::RmsUnitOffset);
    let sizes = [
        size(576, (9, 3, 64), [8, 8, 8]),
        size(896, (14, 2, 64), [0; 3]).with(|f| Family { bias: true, ..f }),
        size(1024, (16, 8, 128), [0; 3]).with(|f| Family { head_norms: Some(NormKind::Rms), ..f }),
        size(640, (4, 1, 256), [4, 0, 4]).with(|f| Family {
            norm: unit_offset,
            head_norms: unit_offset,
            window: Some(6),
            ..f
        }),
        Size { format: Format::F16, ..size(2560, (32, 32, 80), [0; 3]) }.with(|f| Family {
            norm: Some(NormKind::Layer),
            bias: true,
            rotary: Some((32, false)),
            ..f
        }),
        Size { format: Format::Bf16, ..size(3072, (32, 32, 96), [0; 3]) },
    ];
    // The largest shapes have only one case each.
    let wanted = |size: &Size, case: &Case| size.hidden < 2000 || case.kernel.ends_with("backward");
    let of = |size: Size| cases_of(size).into_iter().filter(move |case| wanted(&size, case));
    sizes.into_iter().flat_map(of).collect()
}

fn cases_of(size: Size) -> Vec<Case> {
    let mut out = Vec::new();
    let Size { hidden, heads, kv_heads, head_dim, ranks, format, family, .. } = size;
    let (mut spans, mut ends) = trees(size.trees);
    spans.extend(vec![0; 4 * size.empty]);
    ends.extend(vec![0; size.empty]);
    let n = ends.len();
    let trees = size.trees.len();
    let name = format!(
        "N {n} C {hidden} H {heads} K {kv_heads} D {head_dim} trees {trees} R {ranks:?} {format:?}{family}"
    );
    let record = move |r: &mut Recorder, t: &[Tensor]| {
        self_attention(r, t[X], &size.block(t), t[SPANS], KeySource::Rows { ends: Some(t[ENDS]) })
    };
    out.push(Case::new(
        "self_attention_forward",
        &name,
        size.inputs(&spans, &ends, true),
        move |r, t| Ok(vec![record(r, t)?]),
        move |v| vec![expected(v, &size, n).out],
    ));
    out.push(Case::new(
        "self_attention_backward",
        &name,
        size.inputs(&spans, &ends, true),
        move |r, t| {
            let y = record(r, t)?;
            r.backward(&[(y, t[DOUT])])?;
            Ok(gradients(r, &WATCHED.map(|i| t[i])))
        },
        move |v| expected_gradients(v, &size, n),
    ));
    // Trees after the prompt of the first, which is stored in a cache.
    if let [(known, []), rest @ ..] = size.trees
        && !rest.is_empty()
        && size.empty == 0
    {
        out.push(after_case(&name, size, *known, rest));
    }
    // With a cache that the rows fill themselves: all in one sequence, and each row in its own.
    for apart in [false, true] {
        out.push(Case::new(
            if apart { "self_attention_decode" } else { "self_attention_prefill" },
            &name,
            size.inputs(&spans, &ends, false),
            move |r, t| {
                let kv = r.tensor("cache", n, 2 * kv_heads * head_dim);
                let keys = KeySource::Cache { kv, apart };
                Ok(vec![self_attention(r, t[X], &size.block(t), t[SPANS], keys)?])
            },
            move |v| vec![expected(v, &size, n).out],
        ));
    }
    out
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
        if let Some(kind) = self.head_norms {
            write!(f, " heads {kind:?}")?;
        }
        match self.rotary {
            Some((rotated, interleaved)) => {
                write!(f, " rotated {rotated}{}", if interleaved { " neighbours" } else { "" })?;
            }
            None => f.write_str(" not rotated")?,
        }
        if let Some(cap) = self.soft_cap {
            write!(f, " cap {cap}")?;
        }
        match self.window {
            Some(window) => write!(f, " window {window}"),
            None => Ok(()),
        }
    }
}
