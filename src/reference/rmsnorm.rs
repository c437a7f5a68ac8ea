//! Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467).

use super::{check, dot, row};

/// y = x r w with r = 1 / sqrt(mean(x²) + eps) a row: x (N, C), w (C) -> (y (N, C), r (N)).
pub fn rmsnorm_forward(x: &[f64], w: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let c = w.len();
    let n = x.len() / c;
    check("x", x, &[n, c]);
    let r: Vec<f64> = x.chunks_exact(c).map(|x| 1.0 / (dot(x, x) / c as f64 + eps).sqrt()).collect();
    let y = (0..n * c).map(|at| x[at] * r[at / c] * w[at % c]).collect();
    (y, r)
}

/// Gradients of [`rmsnorm_forward`]: x (N, C), w (C), r (N), dy (N, C) -> (dx (N, C), dw (C)).
/// With g = dy w: dx = r (g - x r² mean(g x)) and dw = Σ_n dy x r.
pub fn rmsnorm_backward(x: &[f64], w: &[f64], r: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (n, c) = (r.len(), w.len());
    check("x", x, &[n, c]);
    check("dy", dy, &[n, c]);
    let mut dx = vec![0.0; n * c];
    let mut dw = vec![0.0; c];
    for (token, r) in r.iter().enumerate() {
        let (x, dy) = (&x[row(token, c)], &dy[row(token, c)]);
        let g: Vec<f64> = dy.iter().zip(w).map(|(dy, w)| dy * w).collect();
        let mean = dot(&g, x) / c as f64;
        for at in 0..c {
            dx[token * c + at] = r * (g[at] - x[at] * r * r * mean);
            dw[at] += dy[at] * x[at] * r;
        }
    }
    (dx, dw)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    #[test]
    fn rmsnorm_divides_by_the_root_mean_square() {
        let (y, r) = rmsnorm_forward(&[3.0, 4.0, 0.0, 0.0], &[1.0, 2.0], 0.5);
        let expected = 1.0 / 13.0_f64.sqrt();
        assert_close(&r, &[expected, 1.0 / 0.5_f64.sqrt()]);
        assert_close(&y, &[3.0 * expected, 8.0 * expected, 0.0, 0.0]);
    }

    #[test]
    fn rmsnorm_gradients_match_central_differences() {
        for (seed, (n, c)) in (30..).zip([(1, 1), (1, 7), (5, 3), (13, 16)]) {
            let eps = 1e-2;
            let mut random = Random::new(seed);
            let (x, w, dy) = (random.values(n * c), random.values(c), random.values(n * c));
            let (_, r) = rmsnorm_forward(&x, &w, eps);
            let (dx, dw) = rmsnorm_backward(&x, &w, &r, &dy);
            assert_gradient("x", seed, &x, &dx, &dy, |x| rmsnorm_forward(x, &w, eps).0);
            assert_gradient("w", seed, &w, &dw, &dy, |w| rmsnorm_forward(&x, w, eps).0);
        }
    }
}
