//! Log-probabilities of given tokens under the output head.

use super::{check, dot, linear_backward_input, linear_backward_weight, linear_forward, row};

/// Logits from the products of the output head: z = scale x, then soft_cap tanh(z / soft_cap).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitTransform {
    /// The factor of the products.
    pub scale: f64,
    /// The bound of the logits.
    pub soft_cap: Option<f64>,
}

impl Default for LogitTransform {
    /// The identity.
    fn default() -> LogitTransform {
        LogitTransform { scale: 1.0, soft_cap: None }
    }
}

impl LogitTransform {
    /// Returns the logit of a product.
    pub fn apply(&self, x: f64) -> f64 {
        let z = self.scale * x;
        self.soft_cap.map_or(z, |cap| cap * (z / cap).tanh())
    }

    /// Returns the derivative of [`LogitTransform::apply`].
    fn slope(&self, x: f64) -> f64 {
        let t = self.soft_cap.map_or(0.0, |cap| (self.scale * x / cap).tanh());
        self.scale * (1.0 - t * t)
    }
}

/// Results of [`logprob_forward`].
#[derive(Clone, Debug, PartialEq)]
pub struct Logprob {
    /// Log-probability of each row's target (T), in nats.
    pub logp: Vec<f64>,
    /// Log-sum-exp of each row's logits (T).
    pub lse: Vec<f64>,
    /// Entropy of each row's distribution (T), in nats.
    pub entropy: Vec<f64>,
    /// log Σ p² over each row's distribution (T).
    pub log_sum_squares: Vec<f64>,
}

/// With logits z = transform(h Wᵀ): lse = ln Σ_v exp z_v, logp = z_target - lse, entropy = lse - Σ_v p_v z_v,
/// log_sum_squares = ln Σ_v p_v².
/// h (T, C), w (V, C), targets (T) -> [`Logprob`].
pub fn logprob_forward(
    h: &[f64],
    w: &[f64],
    targets: &[u32],
    c: usize,
    transform: LogitTransform,
) -> Logprob {
    let (t, v) = (targets.len(), w.len() / c);
    let logits: Vec<f64> = linear_forward(h, w, t, c, v).iter().map(|x| transform.apply(*x)).collect();
    let mut result = Logprob { logp: vec![], lse: vec![], entropy: vec![], log_sum_squares: vec![] };
    for (at, &target) in targets.iter().enumerate() {
        let logits = &logits[row(at, v)];
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = largest + logits.iter().map(|z| (z - largest).exp()).sum::<f64>().ln();
        result.logp.push(logits[target as usize] - lse);
        result.lse.push(lse);
        result.entropy.push(logits.iter().map(|z| (z - lse).exp() * (lse - z)).sum());
        result.log_sum_squares.push(logits.iter().map(|z| (2.0 * (z - lse)).exp()).sum::<f64>().ln());
    }
    result
}

/// Gradients of `logp`: dx = dlogp (onehot(target) - softmax z) dz/dx for the products x = h Wᵀ, dh = dx W, dw = dxᵀ h.
/// h (T, C), w (V, C), targets (T), dlogp (T) -> (dh (T, C), dw (V, C)).
pub fn logprob_backward(
    h: &[f64],
    w: &[f64],
    targets: &[u32],
    dlogp: &[f64],
    c: usize,
    transform: LogitTransform,
) -> (Vec<f64>, Vec<f64>) {
    let (t, v) = (targets.len(), w.len() / c);
    check("dlogp", dlogp, &[t]);
    let lse = logprob_forward(h, w, targets, c, transform).lse;
    let mut dlogits = vec![0.0; t * v];
    for (at, &target) in targets.iter().enumerate() {
        for token in 0..v {
            let x = dot(&h[row(at, c)], &w[row(token, c)]);
            let p = (transform.apply(x) - lse[at]).exp();
            let onehot = if token == target as usize { 1.0 } else { 0.0 };
            dlogits[at * v + token] = dlogp[at] * (onehot - p) * transform.slope(x);
        }
    }
    (linear_backward_input(&dlogits, w, t, c, v), linear_backward_weight(&dlogits, h, t, c, v))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_entropy_is_their_mean_surprise() {
        let (c, v) = (3, 7);
        let mut random = Random::new(90);
        let (h, w) = (random.values(c), random.values(v * c));
        let every: Vec<u32> = (0..v as u32).collect();
        let result = logprob_forward(&h.repeat(v), &w, &every, c, LogitTransform::default());
        let p: Vec<f64> = result.logp.iter().map(|logp| logp.exp()).collect();
        assert_close(&[p.iter().sum()], &[1.0]);
        assert_close(&result.entropy, &vec![-dot(&p, &result.logp); v]);
    }

    #[test]
    fn equal_logits_have_the_entropy_of_a_fair_choice() {
        let result = logprob_forward(&[0.0], &[1.0, 2.0, 3.0, 4.0], &[1], 1, LogitTransform::default());
        assert_close(&[result.logp[0], result.entropy[0]], &[-(4.0_f64.ln()), 4.0_f64.ln()]);
        assert_close(&result.log_sum_squares, &[-(4.0_f64.ln())]);
    }

    #[test]
    fn logprob_survives_large_logits() {
        let result = logprob_forward(&[1000.0], &[1.0, -1.0], &[1], 1, LogitTransform::default());
        assert_eq!(result, {
            Logprob { logp: vec![-2000.0], lse: vec![1000.0], entropy: vec![0.0], log_sum_squares: vec![0.0] }
        });
    }

    #[test]
    fn logits_are_scaled_and_then_capped() {
        let transform = LogitTransform { scale: 0.5, soft_cap: Some(2.0) };
        // 0.5 · (±4, 100) = ±2, 50.
        let logits = [2.0 * 1f64.tanh(), -2.0 * 1f64.tanh(), 2.0];
        assert_close(&[4.0, -4.0, 100.0].map(|x| transform.apply(x)), &logits);
        let result = logprob_forward(&[1.0], &[4.0, -4.0, 100.0], &[1], 1, transform);
        let lse = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
        assert_close(&[result.lse[0], result.logp[0]], &[lse, logits[1] - lse]);
    }

    #[test]
    fn logprob_gradients_match_central_differences() {
        for (seed, (t, c, v)) in (91..).zip([(1, 1, 2), (5, 3, 7), (4, 8, 33)]) {
            let mut random = Random::new(seed);
            let (h, w) = (random.values(t * c), random.values(v * c));
            let (targets, dlogp) = (random.below(v, t), random.values(t));
            for (scale, soft_cap) in [(1.0, None), (0.3, None), (1.0, Some(0.7)), (2.5, Some(3.0))] {
                let transform = LogitTransform { scale, soft_cap };
                let logp = |h: &[f64], w: &[f64]| logprob_forward(h, w, &targets, c, transform).logp;
                let (dh, dw) = logprob_backward(&h, &w, &targets, &dlogp, c, transform);
                assert_gradient("h", seed, &h, &dh, &dlogp, |h| logp(h, &w));
                assert_gradient("w", seed, &w, &dw, &dlogp, |w| logp(&h, w));
            }
        }
    }
}
