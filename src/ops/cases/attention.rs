//! Cases: attention over trees and caches and after preceding keys; and helpers for spans that cases of other ops use.

use super::{Case, Input, beside, columns, gradients};
use crate::ops::{AttentionShape, KeySource, attention};
use crate::reference::{self, Span};

/// The length of a prompt and of its responses.
pub(super) type Tree = (usize, &'static [usize]);

/// Returns the spans and ends of trees.
pub(super) fn trees(trees: &[Tree]) -> (Vec<u32>, Vec<u32>) {
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

pub(super) fn reference_spans(spans: &[f64]) -> Vec<Span> {
    let span = |s: &[f64]| {
        let [prefix_start, prefix_end, own_start, own_end] = [0, 1, 2, 3].map(|i| s[i] as u32);
        Span { prefix_start, prefix_end, own_start, own_end }
    };
    spans.chunks(4).map(span).collect()
}

/// Returns the number of keys before a row's own.
pub(super) fn position(span: &Span) -> u32 {
    (span.keys(None).count() as u32).max(1) - 1
}

/// Splits rows into queries, keys and values.
pub(super) fn split(qkv: &[f64], shape: AttentionShape) -> [Vec<f64>; 3] {
    let (keys_at, width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    [0..keys_at, keys_at..keys_at + width, keys_at + width..keys_at + 2 * width]
        .map(|range| columns(qkv, shape.columns(), range))
}

/// The inverse of [`split`].
pub(super) fn join([q, k, v]: [&[f64]; 3], shape: AttentionShape) -> Vec<f64> {
    let width = shape.kv_heads * shape.head_dim;
    beside(&[(q, shape.heads * shape.head_dim), (k, width), (v, width)])
}

fn name(shape: AttentionShape, rest: &str) -> String {
    let AttentionShape { heads, kv_heads, head_dim, soft_cap, window, .. } = shape;
    let cap = soft_cap.map_or(String::new(), |cap| format!(" cap {cap}"));
    let window = window.map_or(String::new(), |window| format!(" window {window}"));
    format!("H {heads} K {kv_heads} D {head_dim}{cap}{window}, {rest}")
}

fn shape((heads, kv_heads, head_dim): (usize, usize, usize)) -> AttentionShape {
    AttentionShape::new(heads, kv_heads, head_dim)
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    let plain = |of| shape(of);
    let capped = |cap, of| AttentionShape { soft_cap: Some(cap), ..shape(of) };
    let windowed = |window, of| AttentionShape { window: Some(window), ..shape(of) };
    let both = |cap, window, of| AttentionShape { window: Some(window), ..capped(cap, of) };
    // Every head size, with 1 to 8 query heads per kv head, without and with a soft cap, a window or both; prompts with
    // and without responses, and rows that no later row attends to.
    let over_trees: [(AttentionShape, &[Tree], usize); 15] = [
        (plain((1, 1, 8)), &[(1, &[])], 0),
        (plain((2, 2, 8)), &[(0, &[])], 3),
        (capped(0.5, (4, 2, 8)), &[(5, &[3, 4])], 2),
        (windowed(1, (2, 1, 8)), &[(5, &[3, 1]), (2, &[])], 1),
        (windowed(7, (8, 1, 8)), &[(31, &[33, 1, 70]), (2, &[])], 0),
        (both(2.0, 40, (6, 2, 16)), &[(70, &[9, 65])], 1),
        (plain((3, 1, 64)), &[(67, &[13]), (1, &[])], 0),
        (both(1.0, 64, (2, 2, 64)), &[(150, &[20])], 0),
        (windowed(16, (5, 1, 80)), &[(33, &[1, 1]), (17, &[5, 34])], 1),
        (capped(3.0, (6, 1, 96)), &[(40, &[9])], 2),
        (plain((7, 1, 128)), &[(35, &[4, 3])], 0),
        (both(1.0, 9, (2, 1, 128)), &[(33, &[5])], 0),
        (windowed(20, (8, 2, 256)), &[(33, &[7])], 1),
        (capped(50.0, (2, 1, 256)), &[(19, &[2, 1])], 0),
        // Scores far above the soft cap.
        (AttentionShape { scale: 30.0, ..capped(5.0, (2, 1, 8)) }, &[(20, &[3])], 0),
    ];
    for (shape, trees, empty) in over_trees {
        out.extend(tree_cases(shape, trees, empty));
    }
    let all = [
        plain((4, 1, 8)),
        windowed(3, (2, 1, 8)),
        both(1.0, 90, (3, 3, 16)),
        plain((9, 3, 64)),
        windowed(100, (2, 1, 64)),
        plain((5, 1, 80)),
        capped(2.0, (6, 1, 96)),
        plain((7, 1, 128)),
        both(2.0, 130, (8, 1, 128)),
        windowed(64, (4, 1, 256)),
    ];
    for shape in all {
        out.push(cache_case(shape, true));
        // Larger heads take seconds to compile on CPUs: they are among the real shapes.
        if shape.head_dim <= 128 {
            out.push(cache_case(shape, false));
            out.push(after_case(shape, 70));
        }
    }
    // More preceding keys than the window holds, fewer, none.
    out.push(after_case(windowed(25, (2, 1, 16)), 3));
    out.push(after_case(windowed(12, (2, 1, 16)), 130));
    out.push(one_row(plain((2, 1, 64)), 4100));
    out.push(one_row(both(1.0, 1000, (14, 2, 64)), 2500));
    out
}

/// Heads of SmolLM2, Qwen 2.5, Phi 2, Phi 3, Qwen 3, Gemma 3 and Gemma 2: trees, and contexts of 4,096 keys.
pub(super) fn real_shapes() -> Vec<Case> {
    let windowed = |window, of| AttentionShape { window: Some(window), ..shape(of) };
    let heads: [(AttentionShape, &[Tree]); 7] = [
        (shape((9, 3, 64)), &[(200, &[40, 37])]),
        (shape((14, 2, 64)), &[(90, &[40, 37])]),
        (shape((32, 32, 80)), &[(60, &[20])]),
        (windowed(47, (32, 32, 96)), &[(60, &[20])]),
        (shape((16, 8, 128)), &[(100, &[30])]),
        (windowed(64, (4, 1, 256)), &[(150, &[40])]),
        (AttentionShape { soft_cap: Some(50.0), ..windowed(40, (8, 4, 256)) }, &[(60, &[30])]),
    ];
    let mut out = Vec::new();
    for (mut shape, trees) in heads {
        out.extend(tree_cases(shape, trees, 0));
        // A window size that models use.
        shape.window = shape.window.map(|_| 512);
        out.push(one_row(shape, 4096));
        out.push(after_case(shape, 4000));
    }
    out.push(one_row(shape((9, 3, 64)), 16_384));
    out
}

/// Contexts of 4,096 tokens, forward and backward.
pub(super) fn largest_shapes() -> Vec<Case> {
    const CONTEXT: &[Tree] = &[(3000, &[600, 496])];
    let windowed = AttentionShape { window: Some(512), ..shape((2, 1, 256)) };
    [shape((3, 1, 64)), windowed].into_iter().flat_map(|shape| tree_cases(shape, CONTEXT, 0)).collect()
}

/// Forward and backward over trees, followed by rows without keys.
fn tree_cases(shape: AttentionShape, of: &'static [Tree], empty: usize) -> [Case; 2] {
    let (mut spans, mut ends) = trees(of);
    spans.extend(vec![0; 4 * empty]);
    ends.extend(vec![0; empty]);
    let n = ends.len();
    let shown = name(shape, &format!("N {n} trees {}", of.len()));
    let inputs = move || {
        vec![
            Input::normal(1, n, shape.columns(), 1.0).live(0).watched(),
            Input::u32(spans.clone(), n, 4).live(0),
            Input::u32(ends.clone(), n, 1).live(0),
            Input::normal(2, n, shape.heads * shape.head_dim, 1.0).live(0),
        ]
    };
    let forward = Case::new(
        "attention_forward",
        &shown,
        inputs(),
        move |r, t| Ok(vec![attention(r, t[0], shape, t[1], KeySource::Rows { ends: Some(t[2]) })?]),
        move |v| {
            let [q, k, value] = split(&v[0], shape);
            vec![reference::attention_forward(&q, &k, &value, &reference_spans(&v[1]), shape).0]
        },
    );
    let backward = Case::new(
        "attention_backward",
        &shown,
        inputs(),
        move |r, t| {
            let y = attention(r, t[0], shape, t[1], KeySource::Rows { ends: Some(t[2]) })?;
            r.backward(&[(y, t[3])])?;
            Ok(gradients(r, &t[..1]))
        },
        move |v| {
            let ([q, k, value], spans) = (split(&v[0], shape), reference_spans(&v[1]));
            let (out, lse) = reference::attention_forward(&q, &k, &value, &spans, shape);
            let (dq, dk, dv) =
                reference::attention_backward(&q, &k, &value, &spans, &out, &lse, &v[3], shape);
            vec![join([&dq, &dk, &dv], shape)]
        },
    );
    [forward, backward]
}

/// Queries over a cache of a few hundred keys: ranges of all lengths, including shared prefixes and empty ones.
fn cache_case(shape: AttentionShape, apart: bool) -> Case {
    const KEYS: usize = 331;
    let spans: Vec<u32> = [
        [0, 0, 0, 331],
        [0, 0, 7, 8],
        [0, 130, 130, 257],
        [0, 130, 260, 261],
        [3, 3, 5, 5],
        [2, 66, 100, 163],
        [0, 64, 64, 128],
        [40, 41, 41, 300],
        [0, 65, 300, 331],
    ]
    .concat();
    let n = spans.len() / 4;
    let width = shape.kv_heads * shape.head_dim;
    Case::new(
        if apart { "attention_decode" } else { "attention_prefill" },
        name(shape, &format!("N {n} M {KEYS}")),
        vec![
            Input::normal(1, n, shape.heads * shape.head_dim, 1.0).live(0),
            Input::normal(2, KEYS, 2 * width, 1.0),
            Input::u32(spans, n, 4).live(0),
        ],
        move |r, t| Ok(vec![attention(r, t[0], shape, t[2], KeySource::Cache { kv: t[1], apart })?]),
        move |v| {
            let [k, value] = [0..width, width..2 * width].map(|range| columns(&v[1], 2 * width, range));
            vec![reference::attention_forward(&v[0], &k, &value, &reference_spans(&v[2]), shape).0]
        },
    )
}

/// A single query over a long cache, for which a GPU uses the most splits.
fn one_row(shape: AttentionShape, keys: usize) -> Case {
    let width = shape.kv_heads * shape.head_dim;
    Case::new(
        "attention_decode",
        name(shape, &format!("N 1 M {keys}")),
        vec![
            Input::normal(1, 1, shape.heads * shape.head_dim, 1.0),
            Input::normal(2, keys, 2 * width, 1.0),
            Input::u32(vec![0, 0, 0, keys as u32], 1, 4),
        ],
        move |r, t| Ok(vec![attention(r, t[0], shape, t[2], KeySource::Cache { kv: t[1], apart: true })?]),
        move |v| {
            let [k, value] = [0..width, width..2 * width].map(|range| columns(&v[1], 2 * width, range));
            vec![reference::attention_forward(&v[0], &k, &value, &reference_spans(&v[2]), shape).0]
        },
    )
}

/// Trees after `known` keys in another buffer, and a row that attends only to those.
fn after_case(shape: AttentionShape, known: usize) -> Case {
    let (mut spans, _) = trees(&[(9, &[3, 40]), (1, &[])]);
    spans.extend([0; 4]);
    let n = spans.len() / 4;
    let width = shape.kv_heads * shape.head_dim;
    Case::new(
        "attention_after",
        name(shape, &format!("N {n} after {known}")),
        vec![
            Input::normal(1, n, shape.columns(), 1.0).live(0),
            Input::normal(2, known, 2 * width, 1.0).live(1),
            Input::u32(spans, n, 4).live(0),
        ],
        move |r, t| {
            let keys = KeySource::After { kv: t[1], keys: t[1].rows };
            Ok(vec![attention(r, t[0], shape, t[2], keys)?])
        },
        move |v| {
            let [q, k, value] = split(&v[0], shape);
            let mut out = Vec::new();
            // Each row separately: the preceding keys, then its own.
            for (row, span) in reference_spans(&v[2]).iter().enumerate() {
                let own = |of: &[f64]| -> Vec<f64> {
                    span.keys(None).flat_map(|row| &of[row * width..(row + 1) * width]).copied().collect()
                };
                let before = [0..width, width..2 * width].map(|range| columns(&v[1], 2 * width, range));
                let [keys, values] =
                    [[&before[0][..], &own(&k)].concat(), [&before[1][..], &own(&value)].concat()];
                let whole = Span { own_end: (keys.len() / width) as u32, ..Span::default() };
                let cols = shape.heads * shape.head_dim;
                let query = &q[row * cols..(row + 1) * cols];
                out.extend(reference::attention_forward(query, &keys, &values, &[whole], shape).0);
            }
            vec![out]
        },
    )
}
