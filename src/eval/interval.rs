//! Intervals of a win rate without resampling: Wilson's, and the normal one with AlpacaEval's standard error.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::normal;

/// z of a 95 % interval.
pub const Z95: f64 = 1.959_963_984_540_054;

/// The ends of a confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` is inside, ends included (with a tolerance of 1e-12 for rounding).
    pub fn contains(&self, value: f64) -> bool {
        self.low - 1e-12 <= value && value <= self.high + 1e-12
    }

    /// High minus low.
    pub fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// z of a two-sided interval of `level`: Φ⁻¹(½ + level/2). Fails unless 0 < `level` < 1.
pub fn z_of_level(level: f64) -> Result<f64> {
    if level > 0.0 && level < 1.0 {
        Ok(normal::quantile(0.5 + level / 2.0))
    } else {
        Err(Error::config(
            "level",
            format!("{level} is not a confidence level: give a number between 0 and 1, such as 0.95"),
        ))
    }
}

/// The 95 % Wilson score interval of a share of `wins` in `trials` (Wilson 1927); (0, 1) without trials.
pub fn wilson_interval(wins: usize, trials: usize) -> (f64, f64) {
    let interval = wilson(wins as f64, trials as f64, Z95);
    (interval.low, interval.high)
}

/// Wilson's interval for `wins` (which need not be whole) out of `trials`: with p = wins/trials and n = trials, (p +
/// z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). (0, 1) without trials.
pub fn wilson(wins: f64, trials: f64, z: f64) -> Interval {
    if trials.is_nan() || trials <= 0.0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, p) = (trials, (wins / trials).clamp(0.0, 1.0));
    let centre = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    Interval { low: ((centre - half) / scale).max(0.0), high: ((centre + half) / scale).min(1.0) }
}

/// The 95 % interval of the mean of preferences in [0, 1]: Wilson's interval with the effective sample size n_eff = n
/// p(1−p) / s², where p is the mean and s² the variance (divided by n) of the preferences.
///
/// For wins and losses only, s² = p(1−p) and this is Wilson's interval. With ties or soft preferences, s² is smaller
/// and the interval is narrower, as it should be (effective sample size after Kish 1965; in Wilson's interval: Korn and
/// Graubard 1998). n_eff is at most 4n, and n if all preferences are equal. (0, 1) without preferences.
pub fn wilson_of_preferences(preferences: &[f64]) -> Interval {
    let n = preferences.len() as f64;
    if preferences.is_empty() {
        return Interval { low: 0.0, high: 1.0 };
    }
    let mean = preferences.iter().sum::<f64>() / n;
    let variance = preferences.iter().map(|p| (p - mean) * (p - mean)).sum::<f64>() / n;
    let effective = if variance > 0.0 { (mean * (1.0 - mean) / variance * n).clamp(n, 4.0 * n) } else { n };
    wilson(mean * effective, effective, Z95)
}

/// A mean over prompts with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// √(Σ(x − mean)² / (n − 1)) / √n: AlpacaEval's `standard_error`. NaN for a single value.
    pub standard_error: f64,
    /// The number of values.
    pub count: usize,
}

/// The mean of `values` and its standard error; `None` without values.
pub fn mean_with_error(values: &[f64]) -> Option<Mean> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    let standard_error = if values.len() > 1 { (squares / (n - 1.0) / n).sqrt() } else { f64::NAN };
    Some(Mean { mean, standard_error, count: values.len() })
}

/// The normal interval (mean ± z · standard error) of a mean over prompts, at `level`.
///
/// Fails with fewer than two values. It may exceed [0, 1] for win rates near the ends: prefer Wilson's there.
pub fn normal_interval(values: &[f64], level: f64) -> Result<Interval> {
    let z = z_of_level(level)?;
    match mean_with_error(values) {
        Some(m) if m.standard_error.is_finite() => {
            Ok(Interval { low: m.mean - z * m.standard_error, high: m.mean + z * m.standard_error })
        }
        _ => Err(Error::config(
            "values",
            format!("{} finite values give no standard error: give two or more", values.len()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_published_tables() {
        // Newcombe 1998, table I: 81 of 263, and 0 of 20.
        let (low, high) = wilson_interval(81, 263);
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
        let (low, high) = wilson_interval(0, 20);
        assert!(low.abs() < 1e-12 && (high - 0.1611).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn without_ties_the_interval_of_preferences_is_wilsons() {
        let preferences: Vec<f64> = (0..20).map(|i| f64::from(u8::from(i < 13))).collect();
        let (a, b) = (wilson_of_preferences(&preferences), wilson(13.0, 20.0, Z95));
        assert!((a.low - b.low).abs() < 1e-12 && (a.high - b.high).abs() < 1e-12, "{a:?} {b:?}");
    }

    #[test]
    fn ties_narrow_the_interval_of_preferences() {
        let preferences = [0.0, 0.5, 0.5, 1.0, 1.0, 0.5, 0.0, 1.0];
        assert!(wilson_of_preferences(&preferences).width() < wilson(4.5, 8.0, Z95).width());
    }

    #[test]
    fn nothing_panics_without_data() {
        assert_eq!(wilson_interval(0, 0), (0.0, 1.0));
        assert_eq!(wilson_of_preferences(&[]), Interval { low: 0.0, high: 1.0 });
        assert!(mean_with_error(&[]).is_none() && mean_with_error(&[1.0]).unwrap().standard_error.is_nan());
        assert!(normal_interval(&[0.5], 0.95).is_err() && normal_interval(&[0.5, 1.0], 1.5).is_err());
        assert!(wilson_of_preferences(&[1.0; 5]).low > 0.5 && wilson(3.0, f64::NAN, Z95).high == 1.0);
    }
}
