//! The gated activation of Llama's feed-forward layer (Shazeer 2020, arXiv 2002.05202).

use super::check;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// y = silu(gate) up with silu(x) = x σ(x), any shape.
pub fn swiglu_forward(gate: &[f64], up: &[f64]) -> Vec<f64> {
    check("up", up, &[gate.len()]);
    gate.iter().zip(up).map(|(gate, up)| gate * sigmoid(*gate) * up).collect()
}

/// Gradients of [`swiglu_forward`], s = σ(gate): dgate = dy up s (1 + gate (1 - s)), dup = dy gate s.
pub fn swiglu_backward(gate: &[f64], up: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    check("up", up, &[gate.len()]);
    check("dy", dy, &[gate.len()]);
    let rule = |i: usize| {
        let s = sigmoid(gate[i]);
        (dy[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s)), dy[i] * gate[i] * s)
    };
    (0..gate.len()).map(rule).unzip()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    #[test]
    fn swiglu_has_the_known_values() {
        let y = swiglu_forward(&[1.0, 0.0, -1000.0, 1000.0], &[2.0, 5.0, 1.0, 1.0]);
        assert_close(&y, &[2.0 * 0.731_058_578_630_004_9, 0.0, 0.0, 1000.0]);
    }

    #[test]
    fn swiglu_gradients_match_central_differences() {
        for (seed, len) in (70..).zip([1, 7, 64]) {
            let mut random = Random::new(seed);
            let gate: Vec<f64> = random.values(len).iter().map(|x| 4.0 * x).collect();
            let (up, dy) = (random.values(len), random.values(len));
            let (dgate, dup) = swiglu_backward(&gate, &up, &dy);
            assert_gradient("gate", seed, &gate, &dgate, &dy, |gate| swiglu_forward(gate, &up));
            assert_gradient("up", seed, &up, &dup, &dy, |up| swiglu_forward(&gate, up));
        }
    }
}
