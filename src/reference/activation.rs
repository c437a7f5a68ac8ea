//! Activations, plain and gated (Shazeer 2020, arXiv 2002.05202).

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use super::check;
use crate::ops::Activation;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// erf(x) = 2/√π exp(-x²) Σ 2^n x^(2n+1) / (1 · 3 · … · (2n+1)), whose terms all have the sign of x.
fn error_function(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1;
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// The argument of the tanh in [`Activation::GeluTanh`], and its derivative.
fn gelu_argument(x: f64) -> (f64, f64) {
    let factor = (2.0 / PI).sqrt();
    (factor * (x + 0.044715 * x.powi(3)), factor * (1.0 + 3.0 * 0.044715 * x * x))
}

/// Φ(x).
fn normal(x: f64) -> f64 {
    0.5 * (1.0 + error_function(x * FRAC_1_SQRT_2))
}

fn value(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::GeluTanh => 0.5 * x * (1.0 + gelu_argument(x).0.tanh()),
        Activation::Gelu => x * normal(x),
        Activation::ReluSquared => x.max(0.0).powi(2),
    }
}

fn slope(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
        Activation::GeluTanh => {
            let (argument, derivative) = gelu_argument(x);
            let t = argument.tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * derivative
        }
        Activation::Gelu => normal(x) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
        Activation::ReluSquared => 2.0 * x.max(0.0),
    }
}

/// y = activation(x), any shape.
pub fn activation_forward(x: &[f64], activation: Activation) -> Vec<f64> {
    x.iter().map(|x| value(*x, activation)).collect()
}

/// The gradient of [`activation_forward`]: dx = dy activation'(x).
pub fn activation_backward(x: &[f64], activation: Activation, dy: &[f64]) -> Vec<f64> {
    check("dy", dy, &[x.len()]);
    x.iter().zip(dy).map(|(x, dy)| dy * slope(*x, activation)).collect()
}

/// y = activation(gate) up, any shape.
pub fn gated_activation_forward(gate: &[f64], up: &[f64], activation: Activation) -> Vec<f64> {
    check("up", up, &[gate.len()]);
    gate.iter().zip(up).map(|(gate, up)| value(*gate, activation) * up).collect()
}

/// Gradients of [`gated_activation_forward`]: dgate = dy up activation'(gate), dup = dy activation(gate).
pub fn gated_activation_backward(
    gate: &[f64],
    up: &[f64],
    activation: Activation,
    dy: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    check("up", up, &[gate.len()]);
    check("dy", dy, &[gate.len()]);
    let rule = |i: usize| (dy[i] * up[i] * slope(gate[i], activation), dy[i] * value(gate[i], activation));
    (0..gate.len()).map(rule).unzip()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    const ALL: [Activation; 4] =
        [Activation::Silu, Activation::GeluTanh, Activation::Gelu, Activation::ReluSquared];

    #[test]
    fn activations_have_the_known_values() {
        // At x = 1: σ(1), the tanh form to the digits that PyTorch gives in f64, Φ(1).
        let known = [0.731_058_578_630_004_9, 0.841_191_990_608_276_7, 0.841_344_746_068_542_9, 1.0];
        for (activation, of_one) in ALL.into_iter().zip(known) {
            let y = activation_forward(&[1.0, 0.0, -1000.0], activation);
            assert_close(&y, &[of_one, 0.0, 0.0]);
            let gated = gated_activation_forward(&[1.0], &[3.0], activation);
            assert_close(&gated, &[3.0 * of_one]);
        }
    }

    #[test]
    fn the_error_function_has_the_known_values() {
        // Abramowitz and Stegun, table 7.1, and erfc(3) of Wolfram's functions site.
        assert_close(&[error_function(0.5)], &[0.520_499_877_813_046_5]);
        assert_close(&[error_function(-2.0)], &[-0.995_322_265_018_952_7]);
        assert_close(&[1.0 - error_function(3.0) + 1.0], &[1.000_022_090_496_998_6]);
        assert_eq!([7.0, -7.0, 0.0].map(error_function), [1.0, -1.0, 0.0]);
    }

    #[test]
    fn activation_gradients_match_central_differences() {
        for (seed, len) in (70..).zip([1, 7, 64]) {
            for activation in ALL {
                let mut random = Random::new(seed);
                let gate: Vec<f64> = random.values(len).iter().map(|x| 4.0 * x).collect();
                let (up, dy) = (random.values(len), random.values(len));
                let dx = activation_backward(&gate, activation, &dy);
                assert_gradient("x", seed, &gate, &dx, &dy, |x| activation_forward(x, activation));
                let (dgate, dup) = gated_activation_backward(&gate, &up, activation, &dy);
                let y = |gate: &[f64], up: &[f64]| gated_activation_forward(gate, up, activation);
                assert_gradient("gate", seed, &gate, &dgate, &dy, |gate| y(gate, &up));
                assert_gradient("up", seed, &up, &dup, &dy, |up| y(&gate, up));
            }
        }
    }
}
