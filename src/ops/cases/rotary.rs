//! Cases: rotary positions in place, after preceding keys, and into a cache.

use super::attention::{position, reference_spans, trees};
use super::{Case, Input, beside, columns, gradients, twice};
use crate::gpu::{Recorder, Tensor};
use crate::ops::{AttentionShape, KeySource, Rotary, residual_add, rope_table, rotary};
use crate::reference;

/// H, K, D, rotated elements per head, and whether neighbouring elements form a pair.
type Shape = (usize, usize, usize, usize, bool);

pub(super) fn cases() -> Vec<Case> {
    let shapes: [Shape; 9] = [
        (1, 1, 8, 8, false),
        (4, 2, 8, 8, true),
        (3, 1, 16, 6, false),
        (9, 3, 64, 64, false),
        (2, 1, 80, 32, false),
        (2, 1, 80, 20, true),
        (2, 2, 96, 96, false),
        (3, 1, 128, 128, true),
        (4, 1, 256, 64, false),
    ];
    let mut out = Vec::new();
    for shape in shapes {
        for before in [0, 19] {
            out.extend(in_place(shape, before));
        }
        out.push(into_cache(shape));
    }
    // A cache without a rotation.
    out.push(into_cache((2, 1, 8, 0, false)));
    out
}

/// Heads of SmolLM2, Qwen 2.5, Phi 2, Phi 3, Qwen 3 and Gemma 3 at positions around 4,000.
pub(super) fn real_shapes() -> Vec<Case> {
    let shapes: [Shape; 6] = [
        (9, 3, 64, 64, false),
        (14, 2, 64, 64, false),
        (32, 32, 80, 32, false),
        (32, 32, 96, 96, false),
        (16, 8, 128, 128, false),
        (4, 1, 256, 256, false),
    ];
    shapes.into_iter().flat_map(|shape| in_place(shape, 4085)).collect()
}

fn inv_freq(rotated: usize) -> Vec<f64> {
    (0..rotated / 2).map(|j| 1e4f64.powf(-2.0 * j as f64 / rotated as f64)).collect()
}

fn name((heads, kv_heads, d, rotated, interleaved): Shape, rest: &str) -> String {
    let how = if interleaved { "neighbours" } else { "halves" };
    format!("H {heads} K {kv_heads} D {d} rotated {rotated} {how}, {rest}")
}

/// Rotates the queries and keys of rows at these positions, forward or backward.
fn rotate(x: &[f64], positions: &[u32], shape: Shape, backward: bool) -> Vec<f64> {
    let (heads, kv_heads, d, rotated, interleaved) = shape;
    let (cols, keys_at) = ((heads + 2 * kv_heads) * d, heads * d);
    let values_at = keys_at + kv_heads * d;
    let part = |range: std::ops::Range<usize>, heads| {
        let rotate = if backward { reference::rotary_backward } else { reference::rotary_forward };
        rotate(&columns(x, cols, range), positions, &inv_freq(rotated), heads, d, interleaved)
    };
    let (q, k) = (part(0..keys_at, heads), part(keys_at..values_at, kv_heads));
    let v = columns(x, cols, values_at..cols);
    beside(&[(&q, keys_at), (&k, values_at - keys_at), (&v, cols - values_at)])
}

/// Forward and backward, after `before` preceding keys.
fn in_place(shape: Shape, before: usize) -> [Case; 2] {
    let (heads, kv_heads, d, rotated, interleaved) = shape;
    let cols = (heads + 2 * kv_heads) * d;
    let (mut spans, mut ends) = trees(&[(5, &[3, 4]), (9, &[])]);
    spans.extend([0; 4]);
    ends.push(0);
    let (n, positions) = (ends.len(), before + 12);
    let inputs = || {
        let rows = |seed| Input::normal(seed, n, cols, 1.0).live(0);
        vec![
            rows(1).watched(),
            rows(2),
            rows(3),
            Input::u32(spans.clone(), n, 4).live(0),
            Input::f32(rope_table(&inv_freq(rotated), 1.0, positions), positions, rotated),
            Input::normal(4, before.max(1), 2 * kv_heads * d, 1.0).live(1),
        ]
    };
    // The rotated tensor is a sum, and so is its gradient.
    let record = move |r: &mut Recorder, t: &[Tensor]| {
        let qkv = residual_add(r, t[0], t[1])?;
        let keys = match before {
            0 => KeySource::Rows { ends: None },
            _ => KeySource::After { kv: t[5], keys: t[5].rows },
        };
        let how = Rotary { table: t[4], rotated, interleaved };
        rotary(r, qkv, AttentionShape::new(heads, kv_heads, d), Some(how), t[3], keys)?;
        residual_add(r, qkv, qkv)
    };
    let at = move |spans: &[f64]| -> Vec<u32> {
        reference_spans(spans).iter().map(|span| before as u32 + position(span)).collect()
    };
    let shown = name(shape, &format!("N {n} after {before}"));
    let forward = Case::new(
        "rotary",
        &shown,
        inputs(),
        move |r, t| Ok(vec![record(r, t)?]),
        move |v| vec![twice(&rotate(&reference::residual_add(&v[0], &v[1]), &at(&v[3]), shape, false))],
    );
    let backward = Case::new(
        "rotary_backward",
        &shown,
        inputs(),
        move |r, t| {
            let y = record(r, t)?;
            r.backward(&[(y, t[2])])?;
            Ok(gradients(r, &t[..1]))
        },
        move |v| vec![twice(&rotate(&v[2], &at(&v[3]), shape, true))],
    );
    [forward, backward]
}

/// Into a filled cache: its other rows stay as they are.
fn into_cache(shape: Shape) -> Case {
    let (heads, kv_heads, d, rotated, interleaved) = shape;
    let (cols, keys_at) = ((heads + 2 * kv_heads) * d, heads * d);
    // The last key of each row, with or without a prefix; the last row has no keys.
    let spans: Vec<u32> =
        [[0, 0, 0, 1], [0, 4, 9, 12], [2, 2, 13, 30], [0, 4, 30, 31], [5, 5, 7, 7]].concat();
    let (n, m, positions) = (5, 33, 17);
    let inputs = vec![
        Input::normal(1, n, cols, 1.0).live(0),
        Input::normal(2, n, cols, 1.0).live(0),
        Input::u32(spans, n, 4).live(0),
        Input::f32(rope_table(&inv_freq(rotated), 1.0, positions), positions, rotated),
        Input::normal(3, m, 2 * kv_heads * d, 1.0),
    ];
    Case::new(
        "rotary",
        name(shape, &format!("N {n} into a cache")),
        inputs,
        move |r, t| {
            let qkv = residual_add(r, t[0], t[1])?;
            let how = (rotated > 0).then_some(Rotary { table: t[3], rotated, interleaved });
            let keys = KeySource::Cache { kv: t[4], apart: true };
            rotary(r, qkv, AttentionShape::new(heads, kv_heads, d), how, t[2], keys)?;
            Ok(vec![qkv, t[4]])
        },
        move |v| {
            let spans = reference_spans(&v[2]);
            let positions: Vec<u32> = spans.iter().map(position).collect();
            let qkv = rotate(&reference::residual_add(&v[0], &v[1]), &positions, shape, false);
            let mut cache = v[4].clone();
            let width = cols - keys_at;
            for (span, row) in spans.iter().zip(qkv.chunks(cols)) {
                if span.keys(None).next().is_some() {
                    let to = (span.own_end as usize - 1) * width;
                    cache[to..to + width].copy_from_slice(&row[keys_at..]);
                }
            }
            vec![qkv, cache]
        },
    )
}
