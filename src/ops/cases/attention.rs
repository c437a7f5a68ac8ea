//! Cases of self-attention: trees, caches, low-rank terms and 16-bit weights, against `reference`.

use std::sync::Arc;

use super::{Case, Input};
use crate::gpu::{Format, Recorder, Tensor};
use crate::ops::{
    AttentionShape, KeySource, Linear, Lora, Norm, Rotary, SelfAttention, rope_table, self_attention,
};
use crate::reference;

/// A prompt's length and its responses'.
type Tree = (usize, &'static [usize]);

/// The spans and ends of trees.
fn trees(trees: &[Tree]) -> (Vec<u32>, Vec<u32>) {
    let (mut spans, mut ends) = (Vec::new(), Vec::new());
    for (prompt, responses) in trees {
        let start = ends.len();
        let (middle, end) = (start + prompt, start + prompt + responses.iter().sum::<usize>());
        for row in start..middle {
            spans.extend([start, start, start, row + 1]);
            ends.push(end);
        }
        for response in *responses {
            let own = ends.len();
            for row in own..own + response {
                spans.extend([start, middle, own, row + 1]);
                ends.push(own + response);
            }
        }
    }
    let integers = |v: Vec<usize>| v.into_iter().map(|x| x as u32).collect();
    (integers(spans), integers(ends))
}

fn reference_spans(spans: &[f64]) -> Vec<reference::Span> {
    let span = |s: &[f64]| {
        let [prefix_start, prefix_end, own_start, own_end] = [0, 1, 2, 3].map(|i| s[i] as u32);
        reference::Span { prefix_start, prefix_end, own_start, own_end }
    };
    spans.chunks(4).map(span).collect()
}

/// A case's size: N rows in trees, the rest seeing nothing; C; the heads; ranks of low-rank terms on q, k and v.
struct Size {
    trees: &'static [Tree],
    empty: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ranks: [usize; 3],
    /// Of the projection.
    format: Format,
}

const EPS: f32 = 1e-3;

/// Inputs: x, gain, qkv, spans, ends, table, dout, then A and B of q, k and v.
fn inputs(size: &Size, spans: &[u32], ends: &[u32], inv_freq: &[f64], watched: bool) -> Vec<Input> {
    let watch = |input: Input| if watched { input.watched() } else { input };
    let Size { hidden: c, heads, kv_heads, head_dim: d, ranks, .. } = *size;
    let n = ends.len();
    let positions = spans.chunks(4).map(|s| s[1] - s[0] + s[3] - s[2]).max().unwrap_or(1).max(1) as usize;
    let mut out = vec![
        watch(Input::normal(1, n, c, 1.0).live(0)),
        watch(Input::normal(2, 1, c, 1.0)),
        watch(Input::normal(3, (heads + 2 * kv_heads) * d, c, 1.5 / (c as f32).sqrt())).stored(size.format),
        Input::u32(spans.to_vec(), n, 4).live(0),
        Input::u32(ends.to_vec(), n, 1).live(0),
        Input::f32(rope_table(inv_freq, positions), positions, d),
        Input::normal(4, n, heads * d, 1.0).live(0),
    ];
    for (i, (rank, heads)) in ranks.into_iter().zip([heads, kv_heads, kv_heads]).enumerate() {
        out.push(watch(Input::normal(5 + 2 * i as u32, rank.max(1), c, 0.3)));
        out.push(watch(Input::normal(6 + 2 * i as u32, heads * d, rank.max(1), 0.3)));
    }
    out
}

/// The block's matrices with their low-rank terms, and what `reference` makes of them.
struct Expected {
    weights: Vec<f64>,
    normed: Vec<f64>,
    inv: Vec<f64>,
    qkv: [Vec<f64>; 3],
    out: Vec<f64>,
    lse: Vec<f64>,
}

fn expected(v: &[Vec<f64>], size: &Size, inv_freq: &[f64], n: usize) -> Expected {
    let Size { hidden: c, heads, kv_heads, head_dim: d, ranks, .. } = *size;
    let mut weights = v[2].clone();
    let mut first = 0;
    for (i, (rank, heads)) in ranks.into_iter().zip([heads, kv_heads, kv_heads]).enumerate() {
        for (o, j) in (0..heads * d).flat_map(|o| (0..c).map(move |j| (o, j))) {
            let term =
                (0..rank).map(|k| 0.5 * v[8 + 2 * i][o * rank + k] * v[7 + 2 * i][k * c + j]).sum::<f64>();
            weights[(first + o) * c + j] += term;
        }
        first += heads * d;
    }
    let (normed, inv) = reference::rmsnorm_forward(&v[0], &v[1], EPS as f64);
    let positions = positions(&v[3]);
    let (keys, values) = (heads * d, (heads + kv_heads) * d);
    let project = |rows: std::ops::Range<usize>| {
        reference::linear_forward(&normed, &weights[rows.start * c..rows.end * c], n, c, rows.len())
    };
    let turn = |x: Vec<f64>, heads| reference::rope_forward(&x, &positions, inv_freq, heads, d);
    let q = turn(project(0..keys), heads);
    let k = turn(project(keys..values), kv_heads);
    let value = project(values..values + kv_heads * d);
    let (spans, scale) = (reference_spans(&v[3]), (d as f64).powf(-0.5));
    let (out, lse) = reference::attention_forward(&q, &k, &value, &spans, heads, kv_heads, d, scale);
    Expected { weights, normed, inv, qkv: [q, k, value], out, lse }
}

fn positions(spans: &[f64]) -> Vec<u32> {
    spans.chunks(4).map(|s| ((s[1] - s[0] + s[3] - s[2]) as u32).max(1) - 1).collect()
}

/// dx, dgain, dqkv, then dA and dB of every low-rank term.
fn expected_gradients(v: &[Vec<f64>], size: &Size, inv_freq: &[f64], n: usize) -> Vec<Vec<f64>> {
    let Size { hidden: c, heads, kv_heads, head_dim: d, ranks, .. } = *size;
    let e = expected(v, size, inv_freq, n);
    let (spans, scale, positions) = (reference_spans(&v[3]), (d as f64).powf(-0.5), positions(&v[3]));
    let [q, k, value] = &e.qkv;
    let (dq, dk, dv) =
        reference::attention_backward(q, k, value, &spans, &e.out, &e.lse, &v[6], heads, kv_heads, d, scale);
    let dq = reference::rope_backward(&dq, &positions, inv_freq, heads, d);
    let dk = reference::rope_backward(&dk, &positions, inv_freq, kv_heads, d);
    let (mut dnormed, mut dw, mut low, mut first) = (vec![0.0; n * c], Vec::new(), Vec::new(), 0);
    for (i, dy) in [dq, dk, dv].into_iter().enumerate() {
        let (rows, rank) = (dy.len() / n, ranks[i]);
        let w = &e.weights[first * c..(first + rows) * c];
        dnormed = reference::residual_add(&dnormed, &reference::linear_backward_input(&dy, w, n, c, rows));
        let d = reference::linear_backward_weight(&dy, &e.normed, n, c, rows);
        if rank > 0 {
            // dA = scale Bᵀ dW, dB = scale dW Aᵀ.
            let (a, b) = (&v[7 + 2 * i], &v[8 + 2 * i]);
            let at_a = |k: usize, j: usize| (0..rows).map(|o| 0.5 * b[o * rank + k] * d[o * c + j]).sum();
            let at_b = |o: usize, k: usize| (0..c).map(|j| 0.5 * d[o * c + j] * a[k * c + j]).sum();
            low.push((0..rank * c).map(|m| at_a(m / c, m % c)).collect());
            low.push((0..rows * rank).map(|m| at_b(m / rank, m % rank)).collect());
        }
        dw.extend(d);
        first += rows;
    }
    let (dx, dgain) = reference::rmsnorm_backward(&v[0], &v[1], &e.inv, &dnormed);
    [dx, dgain, dw].into_iter().chain(low).collect()
}

/// Trees after `known` rows that lie in a cache. `reference` goes through those anew for every tree.
fn after_case(
    name: &str,
    size: Arc<Size>,
    known: usize,
    rest: &'static [Tree],
    inv_freq: &[f64],
    shape: AttentionShape,
    block: impl Fn(&[Tensor]) -> SelfAttention + Send + Sync + 'static,
) -> Case {
    let AttentionShape { kv_heads, head_dim, .. } = shape;
    let (known_spans, _) = trees(&[(known, &[])]);
    let (spans, ends) = trees(rest);
    let whole: Vec<Tree> = rest.iter().map(|(prompt, responses)| (known + prompt, *responses)).collect();
    let (whole_spans, whole_ends) = trees(&whole);
    let positions = whole_ends.len();
    let mut inputs = inputs(&size, &spans, &ends, inv_freq, false);
    inputs[5] = Input::f32(rope_table(inv_freq, positions), positions, head_dim);
    inputs.push(Input::normal(20, known, size.hidden, 1.0).live(1));
    inputs.push(Input::u32(known_spans, known, 4).live(1));
    let inv_freq = inv_freq.to_vec();
    Case::new(
        "self_attention_after",
        name,
        inputs,
        move |r, t| {
            let (x, spans, block) = (t[13], t[14], block(t));
            let kv = r.tensor("cache", x.rows, 2 * kv_heads * head_dim);
            self_attention(r, x, &block, spans, KeySource::Cache { kv, apart: false })?;
            let keys = KeySource::After { kv, keys: x.rows };
            Ok(vec![self_attention(r, t[0], &block, t[3], keys)?])
        },
        move |v| {
            let (c, mut x, mut own, mut first) = (size.hidden, Vec::new(), Vec::new(), 0);
            for (prompt, responses) in rest {
                x.extend(&v[13]);
                let rows = prompt + responses.iter().sum::<usize>();
                own.extend(x.len() / c..x.len() / c + rows);
                x.extend(&v[0][first * c..(first + rows) * c]);
                first += rows;
            }
            let mut v = v.to_vec();
            v[0] = x;
            v[3] = whole_spans.iter().map(|s| *s as f64).collect();
            let out = expected(&v, &size, &inv_freq, positions).out;
            let cols = shape.heads * head_dim;
            vec![own.iter().flat_map(|row: &usize| out[row * cols..(row + 1) * cols].to_vec()).collect()]
        },
    )
}

impl Size {
    fn new(
        trees: &'static [Tree],
        empty: usize,
        hidden: usize,
        (heads, kv_heads, head_dim): (usize, usize, usize),
        ranks: [usize; 3],
    ) -> Size {
        Size { trees, empty, hidden, heads, kv_heads, head_dim, ranks, format: Format::F32 }
    }
}

/// Trees, a cache and what follows it, at a small shape.
pub(super) fn small_cases() -> Vec<Case> {
    cases_of(Size::new(&[(9, &[]), (5, &[3, 4])], 0, 12, (2, 1, 8), [0; 3]))
}

pub(super) fn cases() -> Vec<Case> {
    const BATCH: [Tree; 16] = [(128, &[]); 16];
    let size = Size::new;
    let sizes: [Size; 10] = [
        size(&[(1, &[])], 0, 1, (1, 1, 8), [0; 3]),
        size(&[(5, &[3, 4])], 2, 12, (4, 2, 8), [4, 0, 4]),
        size(&[(31, &[33, 1]), (2, &[])], 0, 33, (6, 1, 16), [0, 3, 0]),
        size(&[(63, &[]), (1, &[1, 1]), (17, &[5, 64])], 1, 20, (3, 3, 24), [0; 3]),
        size(&[(67, &[13])], 0, 16, (2, 1, 64), [8, 4, 4]),
        size(&[(7, &[3, 11])], 0, 8, (2, 2, 8), [0; 3]),
        size(&[(9, &[]), (5, &[3, 4]), (1, &[1]), (70, &[])], 0, 12, (4, 2, 8), [4, 0, 4]),
        size(&BATCH, 0, 64, (8, 4, 8), [0; 3]),
        // Frozen weights of 16 bits.
        Size { format: Format::F16, ..size(&[(5, &[3, 4])], 2, 12, (4, 2, 8), [4, 0, 4]) },
        Size { format: Format::Bf16, ..size(&[(7, &[3, 11])], 0, 16, (2, 1, 8), [0; 3]) },
    ];
    sizes.into_iter().flat_map(cases_of).collect()
}

fn cases_of(size: Size) -> Vec<Case> {
    let mut out = Vec::new();
    let Size { hidden, heads, kv_heads, head_dim, ranks, format, .. } = size;
    let (mut spans, mut ends) = trees(size.trees);
    spans.extend(vec![0; 4 * size.empty]);
    ends.extend(vec![0; size.empty]);
    let n = ends.len();
    let name = format!(
        "N {n} C {hidden} H {heads} K {kv_heads} D {head_dim} trees {} R {ranks:?} {format:?}",
        size.trees.len()
    );
    let inv_freq: Vec<f64> =
        (0..head_dim / 2).map(|j| 1e4f64.powf(-2.0 * j as f64 / head_dim as f64)).collect();
    let shape = AttentionShape::new(heads, kv_heads, head_dim);
    let block = move |t: &[Tensor]| {
        let firsts = [0, heads * head_dim, (heads + kv_heads) * head_dim];
        let term = |i: usize| (firsts[i], Lora { a: t[7 + 2 * i], b: t[8 + 2 * i], scale: 0.5 });
        SelfAttention {
            norm: Some(Norm::rms(t[1], EPS)),
            qkv: Linear { lora: (0..3).filter(|i| ranks[*i] > 0).map(term).collect(), ..Linear::from(t[2]) },
            head_norms: None,
            rotary: Some(Rotary { table: t[5], rotated: head_dim, interleaved: false }),
            shape,
        }
    };
    let record = move |r: &mut Recorder, t: &[Tensor]| {
        self_attention(r, t[0], &block(t), t[3], KeySource::Rows { ends: Some(t[4]) })
    };
    let size = Arc::new(size);
    let (sized, frequencies) = (size.clone(), inv_freq.clone());
    out.push(Case::new(
        "self_attention_forward",
        &name,
        inputs(&size, &spans, &ends, &inv_freq, true),
        move |r, t| Ok(vec![record(r, t)?]),
        move |v| vec![expected(v, &sized, &frequencies, n).out],
    ));
    let (sized, frequencies) = (size.clone(), inv_freq.clone());
    out.push(Case::new(
        "self_attention_backward",
        &name,
        inputs(&size, &spans, &ends, &inv_freq, true),
        move |r, t| {
            let y = record(r, t)?;
            r.backward(&[(y, t[6])])?;
            Ok([&t[..3], &t[7..]].concat().iter().filter_map(|t| r.gradient(*t)).collect())
        },
        move |v| {
            let mut all = expected_gradients(v, &sized, &frequencies, n);
            if format != Format::F32 {
                all.remove(2);
            }
            all
        },
    ));
    // Trees after the first one's prompt, which lies in a cache.
    if let [(known, []), rest @ ..] = size.trees
        && !rest.is_empty()
        && size.empty == 0
    {
        out.push(after_case(&name, size.clone(), *known, rest, &inv_freq, shape, block));
    }
    // Over a cache that the rows fill themselves: all at once, and each row by itself.
    for apart in [false, true] {
        let (sized, frequencies) = (size.clone(), inv_freq.clone());
        out.push(Case::new(
            if apart { "self_attention_decode" } else { "self_attention_prefill" },
            &name,
            inputs(&size, &spans, &ends, &inv_freq, false),
            move |r, t| {
                let kv = r.tensor("cache", n, 2 * kv_heads * head_dim);
                Ok(vec![self_attention(r, t[0], &block(t), t[3], KeySource::Cache { kv, apart })?])
            },
            move |v| vec![expected(v, &sized, &frequencies, n).out],
        ));
    }
    out
}
