//! Seeded values and the check of a gradient rule against central differences.

use super::random::uniform;

/// Seeded numbers in (-1, 1).
pub struct Random {
    seed: u32,
    drawn: u32,
}

impl Random {
    /// An independent stream for every seed.
    pub fn new(seed: u32) -> Random {
        Random { seed, drawn: 0 }
    }

    /// The next `count` numbers.
    pub fn values(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| 2.0 * self.next() - 1.0).collect()
    }

    /// The next `count` integers below `limit`.
    pub fn below(&mut self, limit: usize, count: usize) -> Vec<u32> {
        (0..count).map(|_| (self.next() * limit as f64) as u32).collect()
    }

    fn next(&mut self) -> f64 {
        self.drawn += 1;
        uniform(self.seed, 0, 0, self.drawn - 1)
    }
}

/// Returns the largest difference, relative to the largest value of either side.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "the two sides differ in length");
    assert!(found.iter().chain(expected).all(|x| x.is_finite()), "a value is not finite");
    let largest = |x: &mut dyn Iterator<Item = f64>| x.fold(0.0, |a: f64, b| a.max(b.abs()));
    let error = largest(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let scale = largest(&mut found.iter().chain(expected).copied());
    if error == 0.0 { 0.0 } else { error / scale }
}

/// Asserts that `found` equals `expected` up to rounding.
#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64]) {
    let error = relative_error(found, expected);
    assert!(error <= 1e-12, "relative error {error:e}: {found:?} instead of {expected:?}");
}

/// Asserts that `dx` is the gradient at `x` of `dot(f(x), cotangent)`, by central differences.
#[track_caller]
pub fn assert_gradient(
    what: &str,
    seed: u32,
    x: &[f64],
    dx: &[f64],
    cotangent: &[f64],
    f: impl Fn(&[f64]) -> Vec<f64>,
) {
    const STEP: f64 = 1e-5;
    let at = |x: &[f64]| super::dot(&f(x), cotangent);
    let mut moved = x.to_vec();
    let expected: Vec<f64> = (0..x.len())
        .map(|i| {
            moved[i] = x[i] + STEP;
            let above = at(&moved);
            moved[i] = x[i] - STEP;
            let below = at(&moved);
            moved[i] = x[i];
            (above - below) / (2.0 * STEP)
        })
        .collect();
    let error = relative_error(dx, &expected);
    assert!(error <= 1e-6, "gradient of {what}, seed {seed}: relative error {error:e}");
}

#[test]
#[should_panic(expected = "gradient of x²")]
fn wrong_gradient_is_caught() {
    let x = Random::new(1).values(3);
    let wrong: Vec<f64> = x.iter().map(|x| 2.0001 * x).collect();
    assert_gradient("x²", 1, &x, &wrong, &[1.0; 3], |x| x.iter().map(|x| x * x).collect());
}

/// Returns the value that a chi-square statistic of independent draws exceeds once in 1,000 times (Wilson and Hilferty
/// 1931).
pub fn chi_square_limit(degrees_of_freedom: usize) -> f64 {
    let k = degrees_of_freedom as f64;
    let spread = 2.0 / (9.0 * k);
    k * (1.0 - spread + 3.09 * spread.sqrt()).powi(3)
}
