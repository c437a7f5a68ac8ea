//! The standard normal distribution: Φ and its inverse.

/// Φ(x), with an absolute error below 1e-15.
///
/// ½ + φ(x) (x + x³/3 + x⁵/(3·5) + …), Marsaglia 2004, "Evaluating the normal distribution", J. Stat. Software 11(4).
pub fn cdf(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x.abs() > 9.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut k) = (x, x, 1.0);
    loop {
        k += 2.0;
        term *= x * x / k;
        let next = sum + term;
        if next == sum {
            break;
        }
        sum = next;
    }
    (0.5 + sum * density(x)).clamp(0.0, 1.0)
}

/// φ(x) = exp(−x²/2) / √(2π).
fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Φ⁻¹(p) for p in [1e-12, 1 − 1e-12] (values outside are clamped), with an absolute error below 1e-9 for p in [1e-4, 1
/// − 1e-4] and below 1e-3 elsewhere.
///
/// Bisection on [`cdf`] to machine precision. An interval needs only a few calls, so speed does not matter.
pub fn quantile(p: f64) -> f64 {
    if p.is_nan() {
        return f64::NAN;
    }
    let p = p.clamp(1e-12, 1.0 - 1e-12);
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_tables() {
        for (p, z) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540_054),
            (0.05, -1.644_853_626_951_472_7),
            (0.999, 3.090_232_306_167_813_5),
        ] {
            assert!((quantile(p) - z).abs() < 1e-9, "{p}: {}", quantile(p));
        }
        assert!(quantile(0.0).is_finite() && quantile(1.0).is_finite() && quantile(f64::NAN).is_nan());
        assert_eq!((cdf(40.0), cdf(-40.0)), (1.0, 0.0));
    }
}
