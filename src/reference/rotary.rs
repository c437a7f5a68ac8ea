//! Rotary positions (Su et al. 2021, arXiv 2104.09864).

use super::check;

/// Rotates pairs of the first R = 2 · len(inv_freq) elements of every head by `positions[n] * inv_freq[j]`:
/// `(x[j], x[j + R/2])`, or if `interleaved` `(x[2 j], x[2 j + 1])`. The other elements are copied.
/// x (N, heads * D), positions (N) -> y (N, heads * D).
pub fn rotary_forward(
    x: &[f64],
    positions: &[u32],
    inv_freq: &[f64],
    heads: usize,
    d: usize,
    interleaved: bool,
) -> Vec<f64> {
    rotate(x, positions, inv_freq, heads, d, interleaved, 1.0)
}

/// The gradient of [`rotary_forward`] is the rotation by minus the angle: dy -> dx, both (N, heads * D).
pub fn rotary_backward(
    dy: &[f64],
    positions: &[u32],
    inv_freq: &[f64],
    heads: usize,
    d: usize,
    interleaved: bool,
) -> Vec<f64> {
    rotate(dy, positions, inv_freq, heads, d, interleaved, -1.0)
}

fn rotate(
    x: &[f64],
    positions: &[u32],
    inv_freq: &[f64],
    heads: usize,
    d: usize,
    interleaved: bool,
    sign: f64,
) -> Vec<f64> {
    let pairs = inv_freq.len();
    assert!(2 * pairs <= d, "{pairs} pairs of a head of {d}");
    check("x", x, &[positions.len(), heads, d]);
    let mut y = x.to_vec();
    for (token, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            for (j, inv_freq) in inv_freq.iter().enumerate() {
                let (sin, cos) = (sign * f64::from(position) * inv_freq).sin_cos();
                let at = (token * heads + head) * d;
                let (first, second) =
                    if interleaved { (at + 2 * j, at + 2 * j + 1) } else { (at + j, at + j + pairs) };
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
    fn rotary_rotates_pairs_half_of_the_rotated_elements_apart_or_neighbours() {
        let quarter = std::f64::consts::FRAC_PI_2;
        let rotated = |x: &[f64], inv_freq: &[f64], interleaved| {
            rotary_forward(x, &[1], inv_freq, 1, x.len(), interleaved)
        };
        assert_close(&rotated(&[1.0, 2.0, 3.0, 4.0], &[quarter, 0.0], false), &[-3.0, 2.0, 1.0, 4.0]);
        assert_close(&rotated(&[1.0, 2.0, 3.0, 4.0], &[quarter, 0.0], true), &[-2.0, 1.0, 3.0, 4.0]);
        // Two elements out of four.
        assert_close(&rotated(&[1.0, 2.0, 3.0, 4.0], &[quarter], false), &[-2.0, 1.0, 3.0, 4.0]);
    }

    #[test]
    fn products_of_rotated_rows_depend_only_on_their_distance() {
        let (d, inv_freq) = (6, [1.0, 0.3, 0.01]);
        let mut random = Random::new(41);
        let (q, k) = (random.values(d), random.values(d));
        for interleaved in [false, true] {
            let at = |x: &[f64], position| rotary_forward(x, &[position], &inv_freq, 1, d, interleaved);
            let score = |at_q, at_k| dot(&at(&q, at_q), &at(&k, at_k));
            assert_close(&[score(9, 4)], &[score(105, 100)]);
            assert!((score(9, 4) - score(9, 5)).abs() > 1e-3);
        }
    }

    #[test]
    fn rotary_gradient_matches_central_differences() {
        for (seed, (n, heads, d, pairs)) in (42..).zip([(1, 1, 2, 1), (3, 2, 6, 2), (5, 3, 8, 4)]) {
            for interleaved in [false, true] {
                let mut random = Random::new(seed);
                let (x, dy) = (random.values(n * heads * d), random.values(n * heads * d));
                let (inv_freq, positions) = (random.values(pairs), random.below(50, n));
                let dx = rotary_backward(&dy, &positions, &inv_freq, heads, d, interleaved);
                let y = |x: &[f64]| rotary_forward(x, &positions, &inv_freq, heads, d, interleaved);
                assert_gradient("x", seed, &x, &dx, &dy, y);
            }
        }
    }
}
