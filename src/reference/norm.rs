//! Normalisation of rows, or of groups of their columns such as heads.

use super::{check, dot, row};
use crate::ops::NormKind;

/// A normalisation of rows of C columns.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights<'a> {
    /// The weight of each column (C).
    pub weight: &'a [f64],
    /// The bias of each column (C).
    pub bias: Option<&'a [f64]>,
    /// Added to the mean square (or the variance).
    pub eps: f64,
    /// The kind of normalisation.
    pub kind: NormKind,
}

impl NormWeights<'_> {
    /// RMSNorm without bias.
    pub fn rms(weight: &[f64], eps: f64) -> NormWeights<'_> {
        NormWeights { weight, bias: None, eps, kind: NormKind::Rms }
    }

    /// Returns the factor of column `k`.
    fn factor(&self, k: usize) -> f64 {
        self.weight[k] + if self.kind == NormKind::RmsUnitOffset { 1.0 } else { 0.0 }
    }

    /// Returns n = (x - mean) r with r = 1 / sqrt(mean((x - mean)²) + eps), and r. Except in LayerNorm, mean is 0.
    fn normed(&self, x: &[f64]) -> (Vec<f64>, f64) {
        let c = x.len() as f64;
        let mean = if self.kind == NormKind::Layer { x.iter().sum::<f64>() / c } else { 0.0 };
        let deviations: Vec<f64> = x.iter().map(|x| x - mean).collect();
        let r = 1.0 / (dot(&deviations, &deviations) / c + self.eps).sqrt();
        (deviations.iter().map(|d| d * r).collect(), r)
    }
}

/// y = n w (+ b) with n = (x - mean) / sqrt(mean((x - mean)²) + eps) per row: x (N, C) -> y (N, C). [`NormKind::Rms`]:
/// mean 0 (Zhang and Sennrich 2019, arXiv 1910.07467); [`NormKind::RmsUnitOffset`]: the same with 1 + w instead of w;
/// [`NormKind::Layer`]: the mean of x (Ba et al. 2016, arXiv 1607.06450).
pub fn norm_forward(x: &[f64], norm: NormWeights) -> Vec<f64> {
    let c = norm.weight.len();
    check("x", x, &[x.len() / c, c]);
    let scaled = |x: &[f64]| -> Vec<f64> {
        let (n, _) = norm.normed(x);
        (0..c).map(|k| n[k] * norm.factor(k) + norm.bias.map_or(0.0, |bias| bias[k])).collect()
    };
    x.chunks_exact(c).flat_map(scaled).collect()
}

/// Results of [`norm_backward`].
#[derive(Clone, Debug, PartialEq)]
pub struct NormBackward {
    /// (N, C).
    pub dx: Vec<f64>,
    /// (C).
    pub dweight: Vec<f64>,
    /// (C).
    pub dbias: Vec<f64>,
}

/// Gradients of [`norm_forward`]: x, dy (N, C). With g = dy w: dx = r (g - n mean(g n)), in LayerNorm also minus r
/// mean(g); dw = Σ dy n and db = Σ dy over the rows.
pub fn norm_backward(x: &[f64], norm: NormWeights, dy: &[f64]) -> NormBackward {
    let c = norm.weight.len();
    let rows = x.len() / c;
    check("x", x, &[rows, c]);
    check("dy", dy, &[rows, c]);
    let mut out = NormBackward { dx: vec![0.0; x.len()], dweight: vec![0.0; c], dbias: vec![0.0; c] };
    for token in 0..rows {
        let (n, r) = norm.normed(&x[row(token, c)]);
        let dy = &dy[row(token, c)];
        let g: Vec<f64> = (0..c).map(|k| dy[k] * norm.factor(k)).collect();
        let mean_gn = dot(&g, &n) / c as f64;
        let mean_g = if norm.kind == NormKind::Layer { g.iter().sum::<f64>() / c as f64 } else { 0.0 };
        for k in 0..c {
            out.dx[token * c + k] = r * (g[k] - n[k] * mean_gn - mean_g);
            out.dweight[k] += dy[k] * n[k];
            out.dbias[k] += dy[k];
        }
    }
    out
}

/// Heads of a row with a common normalisation.
#[derive(Clone, Copy, Debug)]
pub struct NormedHeads<'a> {
    /// The first of their columns.
    pub first: usize,
    /// The number of heads.
    pub heads: usize,
    /// The normalisation; D is the length of its weight.
    pub norm: NormWeights<'a>,
}

impl NormedHeads<'_> {
    /// Returns the range of these heads' columns in a row.
    fn columns(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.heads * self.norm.weight.len()
    }

    /// Returns these heads' columns of x (N, cols) as (N · heads, D).
    fn of(&self, x: &[f64], cols: usize) -> Vec<f64> {
        x.chunks_exact(cols).flat_map(|row| &row[self.columns()]).copied().collect()
    }

    /// Writes `values` to these heads' columns of y (N, cols).
    fn put(&self, y: &mut [f64], values: &[f64], cols: usize) {
        let width = self.columns().len();
        for (row, values) in y.chunks_exact_mut(cols).zip(values.chunks_exact(width)) {
            row[self.columns()].copy_from_slice(values);
        }
    }
}

/// Normalises each head separately; columns that belong to no part are copied: x (N, cols) -> y (N, cols).
pub fn head_norm_forward(x: &[f64], cols: usize, parts: &[NormedHeads]) -> Vec<f64> {
    let mut y = x.to_vec();
    for part in parts {
        part.put(&mut y, &norm_forward(&part.of(x, cols), part.norm), cols);
    }
    y
}

/// Gradients of [`head_norm_forward`]: x, dy (N, cols) -> (dx (N, cols), (dw, db) of each part (D)).
pub fn head_norm_backward(
    x: &[f64],
    cols: usize,
    parts: &[NormedHeads],
    dy: &[f64],
) -> (Vec<f64>, Vec<[Vec<f64>; 2]>) {
    let mut dx = dy.to_vec();
    let mut weights = Vec::new();
    for part in parts {
        let d = norm_backward(&part.of(x, cols), part.norm, &part.of(dy, cols));
        part.put(&mut dx, &d.dx, cols);
        weights.push([d.dweight, d.dbias]);
    }
    (dx, weights)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    const KINDS: [NormKind; 3] = [NormKind::Rms, NormKind::RmsUnitOffset, NormKind::Layer];

    #[test]
    fn rms_norm_divides_by_the_root_mean_square() {
        let y = norm_forward(&[3.0, 4.0, 0.0, 0.0], NormWeights::rms(&[1.0, 2.0], 0.5));
        let r = 1.0 / 13.0_f64.sqrt();
        assert_close(&y, &[3.0 * r, 8.0 * r, 0.0, 0.0]);
    }

    #[test]
    fn layer_norm_is_about_the_mean_and_a_unit_offset_adds_one_to_the_weight() {
        let layer =
            NormWeights { weight: &[1.0, 2.0], bias: Some(&[5.0, 7.0]), eps: 3.0, kind: NormKind::Layer };
        assert_close(&norm_forward(&[8.0, 10.0], layer), &[5.0 - 0.5, 7.0 + 1.0]);
        let offset = NormWeights { kind: NormKind::RmsUnitOffset, ..NormWeights::rms(&[0.0, 1.0], 0.5) };
        assert_close(
            &norm_forward(&[3.0, 4.0], offset),
            &norm_forward(&[3.0, 4.0], NormWeights::rms(&[1.0, 2.0], 0.5)),
        );
    }

    #[test]
    fn norm_gradients_match_central_differences() {
        for (seed, (n, c)) in (30..).zip([(1, 1), (1, 7), (5, 3), (13, 16)]) {
            for kind in KINDS {
                let eps = 1e-2;
                let mut random = Random::new(seed);
                let (x, weight, bias) = (random.values(n * c), random.values(c), random.values(c));
                let dy = random.values(n * c);
                let y = |x: &[f64], weight: &[f64], bias: &[f64]| {
                    norm_forward(x, NormWeights { weight, bias: Some(bias), eps, kind })
                };
                let d = norm_backward(&x, NormWeights { weight: &weight, bias: Some(&bias), eps, kind }, &dy);
                // In LayerNorm, a single column equals its mean.
                if (kind, c) != (NormKind::Layer, 1) {
                    assert_gradient("x", seed, &x, &d.dx, &dy, |x| y(x, &weight, &bias));
                    assert_gradient("weight", seed, &weight, &d.dweight, &dy, |w| y(&x, w, &bias));
                }
                assert_gradient("bias", seed, &bias, &d.dbias, &dy, |bias| y(&x, &weight, bias));
            }
        }
    }

    fn parts<'a>(kind: NormKind, a: &'a [f64], b: &'a [f64]) -> [NormedHeads<'a>; 2] {
        let norm = |weight| NormWeights { kind, ..NormWeights::rms(weight, 1e-2) };
        [NormedHeads { first: 0, heads: 2, norm: norm(a) }, NormedHeads { first: 9, heads: 3, norm: norm(b) }]
    }

    #[test]
    fn head_norm_gradients_match_central_differences() {
        // Two heads, a column between, three heads, two columns after them.
        let (n, d, cols, seed) = (3, 4, 23, 36);
        for kind in KINDS {
            let mut random = Random::new(seed);
            let (x, dy) = (random.values(n * cols), random.values(n * cols));
            let (a, b) = (random.values(d), random.values(d));
            let (dx, weights) = head_norm_backward(&x, cols, &parts(kind, &a, &b), &dy);
            assert_eq!((dx[8], dx[22]), (dy[8], dy[22]), "columns of no part");
            let y = |x: &[f64], a: &[f64], b: &[f64]| head_norm_forward(x, cols, &parts(kind, a, b));
            assert_gradient("x", seed, &x, &dx, &dy, |x| y(x, &a, &b));
            assert_gradient("a", seed, &a, &weights[0][0], &dy, |a| y(&x, a, &b));
            assert_gradient("b", seed, &b, &weights[1][0], &dy, |b| y(&x, &a, b));
        }
    }
}
