//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864), as Hugging Face lays out its pairs.

use super::check;

/// Rotates the pair `(x[j], x[j + D/2])` of every head by `positions[n] * inv_freq[j]`:
/// x (N, heads * D), positions (N), inv_freq (D/2) -> y (N, heads * D).
pub fn rope_forward(x: &[f64], positions: &[u32], inv_freq: &[f64], heads: usize, d: usize) -> Vec<f64> {
    rotate(x, positions, inv_freq, heads, d, 1.0)
}

/// The gradient of [`rope_forward`] is the rotation by minus the angle: dy -> dx, both (N, heads * D).
pub fn rope_backward(dy: &[f64], positions: &[u32], inv_freq: &[f64], heads: usize, d: usize) -> Vec<f64> {
    rotate(dy, positions, inv_freq, heads, d, -1.0)
}

fn rotate(x: &[f64], positions: &[u32], inv_freq: &[f64], heads: usize, d: usize, sign: f64) -> Vec<f64> {
    let half = d / 2;
    assert_eq!(d, 2 * half, "the head size should be even");
    check("x", x, &[positions.len(), heads, d]);
    check("inv_freq", inv_freq, &[half]);
    let mut y = vec![0.0; x.len()];
    for (token, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            for (j, inv_freq) in inv_freq.iter().enumerate() {
                let (sin, cos) = (sign * f64::from(position) * inv_freq).sin_cos();
                let first = (token * heads + head) * d + j;
                let second = first + half;
                y[first] = x[first] * cos - x[second] * sin;
                y[second] = x[second] * cos + x[first] * sin;
            }
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::super::dot;
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    #[test]
    fn rope_turns_pairs_half_a_head_apart() {
        let quarter = std::f64::consts::FRAC_PI_2;
        let y = rope_forward(&[1.0, 2.0, 3.0, 4.0], &[1], &[quarter, 0.0], 1, 4);
        assert_close(&y, &[-3.0, 2.0, 1.0, 4.0]);
    }

    #[test]
    fn rope_products_depend_on_distance_alone() {
        let (d, inv_freq) = (6, [1.0, 0.3, 0.01]);
        let mut random = Random::new(41);
        let (q, k) = (random.values(d), random.values(d));
        let score = |at_q, at_k| {
            let (q, k) =
                (rope_forward(&q, &[at_q], &inv_freq, 1, d), rope_forward(&k, &[at_k], &inv_freq, 1, d));
            dot(&q, &k)
        };
        assert_close(&[score(9, 4)], &[score(105, 100)]);
        assert!((score(9, 4) - score(9, 5)).abs() > 1e-3);
    }

    #[test]
    fn rope_gradient_matches_central_differences() {
        for (seed, (n, heads, d)) in (42..).zip([(1, 1, 2), (3, 2, 6), (5, 3, 8)]) {
            let mut random = Random::new(seed);
            let (x, dy) = (random.values(n * heads * d), random.values(n * heads * d));
            let (inv_freq, positions) = (random.values(d / 2), random.below(50, n));
            let dx = rope_backward(&dy, &positions, &inv_freq, heads, d);
            assert_gradient("x", seed, &x, &dx, &dy, |x| rope_forward(x, &positions, &inv_freq, heads, d));
        }
    }
}
