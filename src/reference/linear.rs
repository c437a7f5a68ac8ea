//! Matrix products with weights stored as (outputs, inputs), plain and with a LoRA term.

use super::{add_scaled, check, dot, row};

/// y = x Wᵀ: x (N, I), w (O, I) -> y (N, O).
pub fn linear_forward(x: &[f64], w: &[f64], n: usize, i: usize, o: usize) -> Vec<f64> {
    check("x", x, &[n, i]);
    check("w", w, &[o, i]);
    let mut y = vec![0.0; n * o];
    for token in 0..n {
        for output in 0..o {
            y[token * o + output] = dot(&x[row(token, i)], &w[row(output, i)]);
        }
    }
    y
}

/// dx = dy W: dy (N, O), w (O, I) -> dx (N, I).
pub fn linear_backward_input(dy: &[f64], w: &[f64], n: usize, i: usize, o: usize) -> Vec<f64> {
    check("dy", dy, &[n, o]);
    check("w", w, &[o, i]);
    let mut dx = vec![0.0; n * i];
    for token in 0..n {
        for output in 0..o {
            add_scaled(&mut dx[row(token, i)], dy[token * o + output], &w[row(output, i)]);
        }
    }
    dx
}

/// dW = dyᵀ x: dy (N, O), x (N, I) -> dw (O, I).
pub fn linear_backward_weight(dy: &[f64], x: &[f64], n: usize, i: usize, o: usize) -> Vec<f64> {
    check("dy", dy, &[n, o]);
    check("x", x, &[n, i]);
    let mut dw = vec![0.0; o * i];
    for token in 0..n {
        for output in 0..o {
            add_scaled(&mut dw[row(output, i)], dy[token * o + output], &x[row(token, i)]);
        }
    }
    dw
}

/// y + bias for each column: y (N, O), bias (O) -> (N, O).
pub fn linear_bias(y: &[f64], bias: &[f64]) -> Vec<f64> {
    check("y", y, &[y.len() / bias.len(), bias.len()]);
    y.iter().enumerate().map(|(at, y)| y + bias[at % bias.len()]).collect()
}

/// The gradient of a bias, the sum over rows: dy (N, O) -> dbias (O).
pub fn linear_backward_bias(dy: &[f64], o: usize) -> Vec<f64> {
    let mut dbias = vec![0.0; o];
    for dy in dy.chunks_exact(o) {
        add_scaled(&mut dbias, 1.0, dy);
    }
    dbias
}

/// Results of [`lora_forward`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoraForward {
    /// h = x Aᵀ (N, R), kept for the backward pass.
    pub h: Vec<f64>,
    /// y = x Wᵀ + scale h Bᵀ (N, O).
    pub y: Vec<f64>,
}

/// A linear map with a low-rank term (Hu et al. 2021, arXiv 2106.09685): h = x Aᵀ,
/// y = x Wᵀ + scale h Bᵀ. x (N, I), w (O, I), a (R, I), b (O, R). `scale` is alpha / R in PEFT's terms.
pub fn lora_forward(
    x: &[f64],
    w: &[f64],
    a: &[f64],
    b: &[f64],
    scale: f64,
    n: usize,
    i: usize,
    o: usize,
    r: usize,
) -> LoraForward {
    let h = linear_forward(x, a, n, i, r);
    let mut y = linear_forward(x, w, n, i, o);
    add_scaled(&mut y, scale, &linear_forward(&h, b, n, r, o));
    LoraForward { h, y }
}

/// Results of [`lora_backward`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoraBackward {
    /// (N, I).
    pub dx: Vec<f64>,
    /// (R, I).
    pub da: Vec<f64>,
    /// (O, R).
    pub db: Vec<f64>,
}

/// Gradients of [`lora_forward`]; W is frozen. With dh = scale dy B:
/// dx = dy W + dh A, dA = dhᵀ x, dB = scale dyᵀ h. dy (N, O), x (N, I), w (O, I), a (R, I), b (O, R).
pub fn lora_backward(
    dy: &[f64],
    x: &[f64],
    w: &[f64],
    a: &[f64],
    b: &[f64],
    scale: f64,
    n: usize,
    i: usize,
    o: usize,
    r: usize,
) -> LoraBackward {
    let scaled_dy: Vec<f64> = dy.iter().map(|dy| scale * dy).collect();
    let h = linear_forward(x, a, n, i, r);
    let dh = linear_backward_input(&scaled_dy, b, n, r, o);
    let mut dx = linear_backward_input(dy, w, n, i, o);
    add_scaled(&mut dx, 1.0, &linear_backward_input(&dh, a, n, i, r));
    LoraBackward {
        dx,
        da: linear_backward_weight(&dh, x, n, i, r),
        db: linear_backward_weight(&scaled_dy, &h, n, r, o),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 1), (7, 5, 3), (4, 8, 13), (9, 1, 2)];

    #[test]
    fn linear_multiplies_by_the_transpose() {
        let y = linear_forward(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 0.0, 1.0, 5.0, 6.0], 2, 2, 3);
        assert_eq!(y, [1.0, 2.0, 17.0, 3.0, 4.0, 39.0]);
    }

    #[test]
    fn linear_gradients_match_central_differences() {
        for (seed, (n, i, o)) in (0..).zip(SHAPES) {
            let mut random = Random::new(seed);
            let (x, w, dy) = (random.values(n * i), random.values(o * i), random.values(n * o));
            let dx = linear_backward_input(&dy, &w, n, i, o);
            let dw = linear_backward_weight(&dy, &x, n, i, o);
            assert_gradient("x", seed, &x, &dx, &dy, |x| linear_forward(x, &w, n, i, o));
            assert_gradient("w", seed, &w, &dw, &dy, |w| linear_forward(&x, w, n, i, o));
        }
    }

    #[test]
    fn bias_gradient_matches_central_differences() {
        for (seed, (n, _, o)) in (15..).zip(SHAPES) {
            let mut random = Random::new(seed);
            let (y, bias, dy) = (random.values(n * o), random.values(o), random.values(n * o));
            let dbias = linear_backward_bias(&dy, o);
            assert_gradient("bias", seed, &bias, &dbias, &dy, |bias| linear_bias(&y, bias));
        }
    }

    #[test]
    fn lora_equals_the_merged_weight() {
        let (n, i, o, r, scale) = (5, 7, 3, 2, 1.5);
        let mut random = Random::new(11);
        let (x, w) = (random.values(n * i), random.values(o * i));
        let (a, b) = (random.values(r * i), random.values(o * r));
        let mut merged = w.clone();
        for output in 0..o {
            for rank in 0..r {
                let factor = scale * b[output * r + rank];
                add_scaled(&mut merged[row(output, i)], factor, &a[row(rank, i)]);
            }
        }
        let y = lora_forward(&x, &w, &a, &b, scale, n, i, o, r).y;
        assert_close(&y, &linear_forward(&x, &merged, n, i, o));
    }

    #[test]
    fn lora_gradients_match_central_differences() {
        for (seed, ((n, i, o), r)) in (20..).zip(SHAPES.into_iter().zip([1, 2, 5, 3])) {
            let scale = 0.75;
            let mut random = Random::new(seed);
            let (x, w, dy) = (random.values(n * i), random.values(o * i), random.values(n * o));
            let (a, b) = (random.values(r * i), random.values(o * r));
            let y = |x: &[f64], a: &[f64], b: &[f64]| lora_forward(x, &w, a, b, scale, n, i, o, r).y;
            let LoraBackward { dx, da, db } = lora_backward(&dy, &x, &w, &a, &b, scale, n, i, o, r);
            assert_gradient("x", seed, &x, &dx, &dy, |x| y(x, &a, &b));
            assert_gradient("a", seed, &a, &da, &dy, |a| y(&x, a, &b));
            assert_gradient("b", seed, &b, &db, &dy, |b| y(&x, &a, b));
        }
    }
}
