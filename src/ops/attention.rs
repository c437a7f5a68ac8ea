//! Attention over prefix trees: the keys that a query sees are two ranges of rows.

use super::case::{Case, Input};
use super::{accumulate, elements};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, GradientTarget, Groups, Launch, Recorder, Tensor, Word, Work};
use crate::reference;

/// How rows divide into heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads, H.
    pub heads: usize,
    /// Kv heads, K, which divides H: head h reads kv head h / (H / K).
    pub kv_heads: usize,
    /// Elements of a head, D: a multiple of 4.
    pub head_dim: usize,
    /// What scores are multiplied with, usually 1 / sqrt(D).
    pub scale: f32,
}

const LANES: u32 = 64;
/// About as many keys as a query sees, where there are that many: for the time cap, since spans are known to the
/// GPU alone.
const USUAL_KEYS: u32 = 256;

/// Softmax attention; probabilities are recomputed in the backward pass (Dao et al. 2022, arXiv 2205.14135).
///   q (N, H*D)  k, v (M, K*D)  spans (N, 4) integers  ends (M, 1) integers  ->  (N, H*D)
///
/// A row of `spans` is prefix start, prefix end, own start, own end: the query sees the key rows of both half-open
/// ranges, which do not overlap. A query without keys gives zeros.
///
/// In training N = M, and the queries that see key j are the rows `j..ends[j]`: to the end of the tree for a
/// prompt's key, of the response for a response's. Without `ends` (k and v a cache) there is no gradient rule.
pub fn attention(
    r: &mut Recorder,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shape: AttentionShape,
    spans: Tensor,
    ends: Option<Tensor>,
) -> Result<Tensor> {
    let AttentionShape { heads, kv_heads, head_dim, scale } = shape;
    assert_eq!((heads % kv_heads, head_dim % 4), (0, 0), "attention: {shape:?}");
    assert_eq!((q.cols, k.cols), (heads * head_dim, kv_heads * head_dim), "attention: columns for {shape:?}");
    assert_eq!((v.rows, v.cols), (k.rows, k.cols), "attention: v as k");
    assert_eq!((spans.rows, spans.cols), (q.rows, 4), "attention: spans");
    let out = r.tensor("attention", q.rows, q.cols);
    let lse = r.tensor("attention lse", q.rows, heads);
    r.launch(Launch {
        kernel: KernelKey { name: "attention_forward", constants: constants(shape) },
        params: vec![q.rows.into(), Word::F32(scale)],
        args: [q, k, v, spans]
            .map(|t| (t, Access::Read))
            .into_iter()
            .chain([(out, Access::Write), (lse, Access::Write)])
            .collect(),
        groups: Groups::over(q.rows, LANES).times(heads as u32),
        work: work(q, k, 4),
    });
    let Some(ends) = ends else { return Ok(out) };
    assert_eq!((k.rows, ends.rows, ends.cols), (q.rows, q.rows, 1), "attention: rows of k, of ends");
    assert_ne!(k, v, "attention: one launch writes both gradients");
    r.rule(&[out, lse], move |r| {
        let Some(dout) = r.gradient(out) else { return Ok(()) };
        let stats = r.tensor("attention stats", q.rows, 2 * heads);
        r.launch(Launch {
            kernel: KernelKey { name: "attention_backward_stats", constants: constants(shape) },
            params: vec![q.rows.into()],
            args: [dout, out, lse]
                .map(|t| (t, Access::Read))
                .into_iter()
                .chain([(stats, Access::Write)])
                .collect(),
            groups: elements(q.rows, heads),
            work: Work { flops: 2.0 * q.cols as f64, bytes: 8.0 * q.cols as f64 },
        });
        if let Some(dq) = r.gradient_target(q) {
            let mut constants = constants(shape);
            constants.push(("ADD", accumulate(dq)));
            let reads = [q, k, v, spans, dout, stats];
            let groups = Groups::over(q.rows, LANES).times(heads as u32);
            launch_backward(r, "attention_backward_query", constants, &reads, &[dq], scale, groups);
        }
        let targets = [k, v].map(|t| r.gradient_target(t));
        if targets.iter().any(Option::is_some) {
            let [to_key, to_value] = targets.map(|t| t.is_some() as u32);
            let [add_key, add_value] = targets.map(|t| t.map_or(0, accumulate));
            let mut constants = constants(shape);
            constants.extend([("TO_KEY", to_key), ("TO_VALUE", to_value)]);
            constants.extend([("ADD_KEY", add_key), ("ADD_VALUE", add_value)]);
            let reads = [q, k, v, ends, dout, stats];
            let writes: Vec<GradientTarget> = targets.into_iter().flatten().collect();
            let groups = Groups::over(k.rows, LANES).times(kv_heads as u32);
            launch_backward(r, "attention_backward_key_value", constants, &reads, &writes, scale, groups);
        }
        Ok(())
    });
    Ok(out)
}

fn constants(shape: AttentionShape) -> Vec<(&'static str, u32)> {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    vec![("HEADS", heads as u32), ("KV_HEADS", kv_heads as u32), ("DIM", head_dim as u32)]
}

/// The work of a row at `flops` operations for each key and element of a query's heads.
fn work(q: Tensor, k: Tensor, flops: u32) -> Work {
    let keys = k.rows.max().min(2 * USUAL_KEYS) / 2;
    Work { flops: (flops * keys) as f64 * q.cols as f64, bytes: 8.0 * (q.cols + k.cols) as f64 }
}

fn launch_backward(
    r: &mut Recorder,
    name: &'static str,
    constants: Vec<(&'static str, u32)>,
    reads: &[Tensor],
    writes: &[GradientTarget],
    scale: f32,
    groups: Groups,
) {
    let reads_as = reads.iter().map(|t| (*t, Access::Read));
    r.launch(Launch {
        kernel: KernelKey { name, constants },
        params: vec![groups.rows.into(), Word::F32(scale)],
        args: reads_as.chain(writes.iter().map(|t| (t.tensor, Access::Write))).collect(),
        groups,
        work: work(reads[0], reads[1], 8),
    });
}

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

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    let shape = |heads, kv_heads, head_dim| AttentionShape {
        heads,
        kv_heads,
        head_dim,
        scale: (head_dim as f32).powf(-0.5),
    };
    const BATCH: [Tree; 16] = [(128, &[]); 16];
    let all = [true; 3];
    // Each with its trees, rows after them that see nothing, and which of dq, dk, dv are wanted.
    let layouts: [(AttentionShape, &[Tree], usize, [bool; 3]); 8] = [
        (shape(1, 1, 4), &[(1, &[])], 0, all),
        (shape(4, 2, 8), &[(5, &[3, 4])], 2, all),
        (shape(6, 1, 12), &[(31, &[33, 1]), (2, &[])], 0, all),
        (shape(3, 3, 20), &[(63, &[]), (1, &[1, 1]), (17, &[5, 64])], 1, all),
        (shape(2, 1, 64), &[(67, &[13])], 0, all),
        (shape(2, 2, 4), &[(7, &[3, 11])], 0, [true, false, true]),
        (shape(2, 1, 4), &[(11, &[2, 7])], 0, [false, true, false]),
        (shape(8, 4, 8), &BATCH, 0, all),
    ];
    for (shape, layout, empty, wanted) in layouts {
        let AttentionShape { heads, kv_heads, head_dim: d, scale } = shape;
        let (mut spans, mut ends) = trees(layout);
        spans.extend(vec![0; 4 * empty]);
        ends.extend(vec![0; empty]);
        let n = ends.len();
        let name = format!("N {n} H {heads} K {kv_heads} D {d} trees {}", layout.len());
        let inputs = || {
            let watched = |input: Input, i: usize| if wanted[i] { input.watched() } else { input };
            vec![
                watched(Input::normal(1, n, heads * d, 1.5).live(0), 0),
                watched(Input::normal(2, n, kv_heads * d, 1.5).live(0), 1),
                watched(Input::normal(3, n, kv_heads * d, 1.5).live(0), 2),
                Input::u32(spans.clone(), n, 4).live(0),
                Input::u32(ends.clone(), n, 1).live(0),
                Input::normal(4, n, heads * d, 1.0).live(0),
            ]
        };
        let forward = move |v: &[Vec<f64>]| {
            let spans = reference_spans(&v[3]);
            reference::attention_forward(&v[0], &v[1], &v[2], &spans, heads, kv_heads, d, scale as f64)
        };
        out.push(Case::new(
            "attention_forward",
            &name,
            inputs(),
            move |r, t| Ok(vec![attention(r, t[0], t[1], t[2], shape, t[3], Some(t[4]))?]),
            move |v| vec![forward(v).0],
        ));
        // Twice over, so that the second gradients are added to the first.
        out.push(Case::new(
            "attention_backward",
            &name,
            inputs(),
            move |r, t| {
                let y = attention(r, t[0], t[1], t[2], shape, t[3], Some(t[4]))?;
                let z = attention(r, t[0], t[1], t[2], shape, t[3], Some(t[4]))?;
                let sum = super::residual_add(r, y, z)?;
                r.backward(&[(sum, t[5])])?;
                Ok(t[..3].iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let (spans, (out, lse)) = (reference_spans(&v[3]), forward(v));
                let (dq, dk, dv) = reference::attention_backward(
                    &v[0],
                    &v[1],
                    &v[2],
                    &spans,
                    &out,
                    &lse,
                    &v[5],
                    heads,
                    kv_heads,
                    d,
                    scale as f64,
                );
                let wanted = [dq, dk, dv].into_iter().zip(wanted).filter(|(_, wanted)| *wanted);
                wanted.map(|(d, _)| d.iter().map(|d| 2.0 * d).collect()).collect()
            },
        ));
    }
    // Over a cache: a query a sequence, its prompt and its own rows apart.
    let (n, m, cached) = (3, 70, shape(4, 2, 8));
    let spans = vec![0, 31, 40, 43, 31, 31, 31, 32, 0, 0, 7, 70];
    out.push(Case::new(
        "attention_forward",
        format!("N {n} M {m} H 4 K 2 D 8"),
        vec![
            Input::normal(1, n, 32, 3.0).live(0),
            Input::normal(2, m, 16, 3.0).live(1),
            Input::normal(3, m, 16, 1.0).live(1),
            Input::u32(spans, n, 4).live(0),
        ],
        move |r, t| Ok(vec![attention(r, t[0], t[1], t[2], cached, t[3], None)?]),
        move |v| {
            let (spans, scale) = (reference_spans(&v[3]), cached.scale as f64);
            vec![reference::attention_forward(&v[0], &v[1], &v[2], &spans, 4, 2, 8, scale).0]
        },
    ));
    out
}
