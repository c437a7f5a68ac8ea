//! Attention over prefix trees: a query attends to two ranges of rows.

use super::{add_scaled, check, dot};
use crate::ops::AttentionShape;

/// The key rows that one query attends to: `prefix_start..prefix_end` and `own_start..own_end`, both half-open. A query
/// of a prompt has an empty prefix; one of a response has the prompt as prefix. The ranges must not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First row of the shared prefix.
    pub prefix_start: u32,
    /// One past the last row of the shared prefix.
    pub prefix_end: u32,
    /// First row of the query's own sequence.
    pub own_start: u32,
    /// One past the last row that the query attends to: its own row, plus one.
    pub own_end: u32,
}

impl Span {
    /// Returns the key rows, in order; with a window only the last ones.
    pub fn keys(self, window: Option<usize>) -> impl Iterator<Item = usize> + Clone {
        let all = (self.prefix_start..self.prefix_end).chain(self.own_start..self.own_end);
        let count = (self.prefix_end - self.prefix_start + self.own_end - self.own_start) as usize;
        all.skip(window.map_or(0, |window| count.saturating_sub(window))).map(|row| row as usize)
    }
}

/// The log-sum-exp that marks a query without keys.
pub const EMPTY_LSE: f64 = -1e30;

/// Returns the range of the D elements of a (row, head) pair.
fn slot(row: usize, head: usize, heads: usize, d: usize) -> std::ops::Range<usize> {
    super::row(row * heads + head, d)
}

/// s = scale q·k, with a soft cap cap · tanh(s / cap), and its derivative with respect to scale q·k.
fn score(q: &[f64], k: &[f64], shape: AttentionShape) -> (f64, f64) {
    let s = f64::from(shape.scale) * dot(q, k);
    match shape.soft_cap.map(f64::from) {
        Some(cap) => (cap * (s / cap).tanh(), 1.0 - (s / cap).tanh().powi(2)),
        None => (s, 1.0),
    }
}

/// Softmax attention with grouped queries: head h reads kv head h / (H / K). For each query and head, over the keys j
/// of its span (with a window only the last ones): s_j = scale q·k_j, soft-capped if there is a cap, lse = ln Σ exp
/// s_j, out = Σ exp(s_j - lse) v_j. q (N, H*D), k and v (M, K*D), spans (N) -> (out (N, H*D), lse (N, H)). A query
/// without keys gives zeros and [`EMPTY_LSE`].
pub fn attention_forward(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    spans: &[Span],
    shape: AttentionShape,
) -> (Vec<f64>, Vec<f64>) {
    let AttentionShape { heads, kv_heads, head_dim: d, window, .. } = shape;
    let n = spans.len();
    let group = group_size(q, k, v, n, shape);
    let mut out = vec![0.0; n * heads * d];
    let mut lse = vec![EMPTY_LSE; n * heads];
    for (token, span) in spans.iter().enumerate() {
        for head in 0..heads {
            let query = slot(token, head, heads, d);
            let key = |row| slot(row, head / group, kv_heads, d);
            let score = |row| score(&q[query.clone()], &k[key(row)], shape).0;
            let scores: Vec<f64> = span.keys(window).map(score).collect();
            if scores.is_empty() {
                continue;
            }
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total = largest + scores.iter().map(|s| (s - largest).exp()).sum::<f64>().ln();
            for (row, s) in span.keys(window).zip(scores) {
                add_scaled(&mut out[query.clone()], (s - total).exp(), &v[key(row)]);
            }
            lse[token * heads + head] = total;
        }
    }
    (out, lse)
}

/// Gradients of [`attention_forward`], with probabilities recomputed from lse (Dao et al. 2022, arXiv 2205.14135):
/// p_j = exp(s_j - lse), ds_j = p_j (dout·v_j - dout·out), times the derivative of the soft cap if there is one,
/// dq = scale Σ_j ds_j k_j, dk_j = scale Σ ds_j q, dv_j = Σ p_j dout, the last two over the queries and heads that
/// attend to the key. out, dout (N, H*D), lse (N, H) -> (dq (N, H*D), dk (M, K*D), dv (M, K*D)).
pub fn attention_backward(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    spans: &[Span],
    out: &[f64],
    lse: &[f64],
    dout: &[f64],
    shape: AttentionShape,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let AttentionShape { heads, kv_heads, head_dim: d, window, .. } = shape;
    let (n, scale) = (spans.len(), f64::from(shape.scale));
    let group = group_size(q, k, v, n, shape);
    check("out", out, &[n, heads, d]);
    check("lse", lse, &[n, heads]);
    check("dout", dout, &[n, heads, d]);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for (token, span) in spans.iter().enumerate() {
        for head in 0..heads {
            let query = slot(token, head, heads, d);
            let (q, dout) = (&q[query.clone()], &dout[query.clone()]);
            let delta = dot(dout, &out[query.clone()]);
            for row in span.keys(window) {
                let key = slot(row, head / group, kv_heads, d);
                let (score, slope) = score(q, &k[key.clone()], shape);
                let p = (score - lse[token * heads + head]).exp();
                let ds = p * (dot(dout, &v[key.clone()]) - delta) * slope;
                add_scaled(&mut dq[query.clone()], scale * ds, &k[key.clone()]);
                add_scaled(&mut dk[key.clone()], scale * ds, q);
                add_scaled(&mut dv[key], p, dout);
            }
        }
    }
    (dq, dk, dv)
}

/// Checks the shapes and returns H / K, the query heads per kv head.
fn group_size(q: &[f64], k: &[f64], v: &[f64], n: usize, shape: AttentionShape) -> usize {
    let AttentionShape { heads, kv_heads, head_dim: d, .. } = shape;
    assert_eq!(heads % kv_heads, 0, "the kv heads should divide the heads");
    check("q", q, &[n, heads, d]);
    check("k", k, &[k.len() / (kv_heads * d), kv_heads, d]);
    check("v", v, &[k.len()]);
    heads / kv_heads
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    /// Causal spans of one tree: a prompt and its responses, laid out from row `start`.
    fn tree(start: u32, prompt: u32, responses: &[u32]) -> Vec<Span> {
        let prompt_end = start + prompt;
        let mut spans: Vec<Span> = (start..prompt_end)
            .map(|row| Span { prefix_start: start, prefix_end: start, own_start: start, own_end: row + 1 })
            .collect();
        let mut own_start = prompt_end;
        for length in responses {
            spans.extend((own_start..own_start + length).map(|row| Span {
                prefix_start: start,
                prefix_end: prompt_end,
                own_start,
                own_end: row + 1,
            }));
            own_start += length;
        }
        spans
    }

    fn shape(heads: usize, kv_heads: usize, head_dim: usize, scale: f32) -> AttentionShape {
        AttentionShape { scale, ..AttentionShape::new(heads, kv_heads, head_dim) }
    }

    #[test]
    fn attention_weighs_values_by_softmax() {
        // Scores ln 1 and ln 3 give weights 1/4 and 3/4.
        let spans = [Span { own_end: 2, ..Span::default() }];
        let (out, lse) =
            attention_forward(&[2.0], &[0.0, 3.0_f64.ln()], &[8.0, 4.0], &spans, shape(1, 1, 1, 0.5));
        assert_close(&out, &[8.0 / 4.0 + 4.0 * 3.0 / 4.0]);
        assert_close(&lse, &[4.0_f64.ln()]);
    }

    #[test]
    fn neighbouring_heads_share_a_kv_head() {
        // With one key, every head returns its kv head's value.
        let spans = [Span { own_end: 1, ..Span::default() }];
        let (out, _) = attention_forward(&[1.0; 4], &[1.0; 2], &[3.0, 5.0], &spans, shape(4, 2, 1, 1.0));
        assert_eq!(out, [3.0, 3.0, 5.0, 5.0]);
    }

    #[test]
    fn query_without_keys_gives_zeros() {
        let spans = [Span { prefix_start: 1, prefix_end: 1, own_start: 2, own_end: 2 }];
        let (out, lse) = attention_forward(&[1.0, 2.0], &[1.0; 6], &[1.0; 6], &spans, shape(1, 1, 2, 1.0));
        assert_eq!((out, lse), (vec![0.0; 2], vec![EMPTY_LSE]));
    }

    #[test]
    fn attention_survives_large_scores() {
        let spans = [Span { own_end: 2, ..Span::default() }];
        let (out, lse) = attention_forward(&[1000.0], &[1.0, -1.0], &[3.0, 5.0], &spans, shape(1, 1, 1, 1.0));
        assert_eq!((out, lse), (vec![3.0], vec![1000.0]));
    }

    #[test]
    fn a_window_is_the_last_keys_and_a_soft_cap_bounds_scores() {
        let span = Span { prefix_start: 2, prefix_end: 5, own_start: 9, own_end: 11 };
        let keys = |window| span.keys(window).collect::<Vec<_>>();
        assert_eq!(keys(None), [2, 3, 4, 9, 10]);
        assert_eq!((keys(Some(3)), keys(Some(1)), keys(Some(9))), (vec![4, 9, 10], vec![10], keys(None)));
        let capped = AttentionShape { soft_cap: Some(2.0), ..shape(1, 1, 1, 1.0) };
        let spans = [Span { own_end: 1, ..Span::default() }];
        let (_, lse) = attention_forward(&[1.0], &[1.0], &[1.0], &spans, capped);
        assert_close(&lse, &[2.0 * 0.5_f64.tanh()]);
        let (_, lse) = attention_forward(&[1e3], &[1.0], &[1.0], &spans, capped);
        assert_close(&lse, &[2.0]);
    }

    #[test]
    fn shared_prompt_equals_a_copy_for_each_response() {
        let (heads, kv_heads, d) = (4, 2, 3);
        let shape = shape(heads, kv_heads, d, 0.6);
        let (width, kv_width) = (heads * d, kv_heads * d);
        let mut random = Random::new(51);
        let spans = tree(0, 5, &[3, 4]);
        let (q, k, v) =
            (random.values(12 * width), random.values(12 * kv_width), random.values(12 * kv_width));
        let (shared, shared_lse) = attention_forward(&q, &k, &v, &spans, shape);
        for response in [5..8, 8..12] {
            let rows: Vec<usize> = (0..5).chain(response).collect();
            let take = |x: &[f64], width: usize| -> Vec<f64> {
                rows.iter().flat_map(|&row| x[super::super::row(row, width)].to_vec()).collect()
            };
            let causal = tree(0, rows.len() as u32, &[]);
            let (q, k, v) = (take(&q, width), take(&k, kv_width), take(&v, kv_width));
            let (out, lse) = attention_forward(&q, &k, &v, &causal, shape);
            assert_close(&out, &take(&shared, width));
            assert_close(&lse, &take(&shared_lse, heads));
        }
    }

    #[test]
    fn attention_gradients_match_central_differences() {
        // A single query; a tree followed by an empty span, with and without grouped queries; two trees.
        let with_empty: Vec<Span> = tree(0, 3, &[2, 3]).into_iter().chain([Span::default()]).collect();
        let two_trees: Vec<Span> = tree(0, 2, &[3, 1]).into_iter().chain(tree(6, 1, &[2, 2])).collect();
        let cases = [
            (tree(0, 1, &[]), 1, 1, 1),
            (with_empty.clone(), 4, 2, 3),
            (with_empty, 3, 3, 2),
            (two_trees, 6, 1, 5),
        ];
        for (seed, (spans, heads, kv_heads, d)) in (60..).zip(cases) {
            let n = spans.len();
            let plain = shape(heads, kv_heads, d, 0.7);
            let capped = AttentionShape { soft_cap: Some(0.3), ..plain };
            let windowed = AttentionShape { window: Some(3), ..plain };
            for shape in [plain, capped, windowed, AttentionShape { window: Some(2), ..capped }] {
                let mut random = Random::new(seed);
                let (q, dout) = (random.values(n * heads * d), random.values(n * heads * d));
                let (k, v) = (random.values(n * kv_heads * d), random.values(n * kv_heads * d));
                let forward = |q: &[f64], k: &[f64], v: &[f64]| attention_forward(q, k, v, &spans, shape);
                let (out, lse) = forward(&q, &k, &v);
                let (dq, dk, dv) = attention_backward(&q, &k, &v, &spans, &out, &lse, &dout, shape);
                assert_gradient("q", seed, &q, &dq, &dout, |q| forward(q, &k, &v).0);
                assert_gradient("k", seed, &k, &dk, &dout, |k| forward(&q, k, &v).0);
                assert_gradient("v", seed, &v, &dv, &dout, |v| forward(&q, &k, v).0);
            }
        }
    }
}
