//! Bootstrap intervals over prompts. A resample draws as many prompts as there are, with replacement. Everything that
//! belongs to a prompt (both orders, all judges) is resampled together: the prompt is the cluster.

use crate::error::{Error, Result};
use crate::eval::interval::{Interval, z_of_level};
use crate::eval::normal;
use crate::eval::random::SplitMix;

/// The settings of resampling.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap {
    /// The number of resamples.
    pub resamples: usize,
    /// Resample r uses stream r of this seed, so that intervals are reproducible to the bit.
    pub seed: u64,
    /// Confidence level, such as 0.95.
    pub level: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { resamples: 2_000, seed: 0, level: 0.95 }
    }
}

impl Bootstrap {
    fn check(&self, count: usize) -> Result<()> {
        z_of_level(self.level)?;
        if self.resamples < 2 {
            return Err(Error::config(
                "resamples",
                format!("{} is too few: give 1,000 or more", self.resamples),
            ));
        }
        if count == 0 || count > u32::MAX as usize {
            return Err(Error::config(
                "values",
                format!("cannot resample {count} prompts: give at least one"),
            ));
        }
        Ok(())
    }

    /// Computes `statistic` on the indices of each resample of `count` prompts, in the order of the resamples.
    ///
    /// Fails without prompts or with invalid settings.
    pub fn replicates(&self, count: usize, mut statistic: impl FnMut(&[u32]) -> f64) -> Result<Vec<f64>> {
        self.check(count)?;
        let mut indices = vec![0u32; count];
        Ok((0..self.resamples)
            .map(|resample| {
                let mut random = SplitMix::new(self.seed, resample as u64);
                indices.iter_mut().for_each(|i| *i = random.below(count) as u32);
                statistic(&indices)
            })
            .collect())
    }

    /// The percentile interval of replicates (Efron 1979): their (1 ± level)/2 quantiles.
    ///
    /// Replicates that are not finite are left out. Fails if none is left.
    pub fn percentile_of(&self, replicates: &[f64]) -> Result<Interval> {
        let sorted = sorted_finite(replicates)?;
        let tail = (1.0 - self.level) / 2.0;
        Ok(Interval { low: quantile(&sorted, tail), high: quantile(&sorted, 1.0 - tail) })
    }

    /// The percentile bootstrap interval of the mean of `values`, one value per prompt.
    ///
    /// If all values are equal, the interval has no width: report Wilson's interval with it.
    pub fn percentile_mean(&self, values: &[f64]) -> Result<Interval> {
        finite(values)?;
        self.percentile_of(&self.replicates(values.len(), |indices| mean_at(values, indices))?)
    }

    /// The BCa (bias-corrected and accelerated) bootstrap interval of the mean of `values`, one value per prompt.
    ///
    /// Efron 1987: the percentiles are taken at Φ(z0 + (z0 ± z)/(1 − a(z0 ± z))), with z0 = Φ⁻¹(share of replicates
    /// below the mean, counting ties half) and a = Σdᵢ³ / (6 (Σdᵢ²)^{3/2}), where dᵢ is the jackknife mean minus its
    /// value without prompt i. If all values are equal, the interval has no width.
    pub fn bca_mean(&self, values: &[f64]) -> Result<Interval> {
        finite(values)?;
        let replicates = self.replicates(values.len(), |indices| mean_at(values, indices))?;
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        // The mean without value i is lower than the mean of all by (xᵢ − mean)/(n − 1).
        let jackknife: Vec<f64> = values.iter().map(|x| mean - (x - mean) / (count - 1.0).max(1.0)).collect();
        self.bca_of(&replicates, mean, &jackknife)
    }

    /// The BCa interval of a statistic, from its replicates, its `estimate` on all prompts, and its values without each
    /// prompt.
    ///
    /// Replicates and jackknife values that are not finite are left out. Fails if no replicate is left.
    pub fn bca_of(&self, replicates: &[f64], estimate: f64, jackknife: &[f64]) -> Result<Interval> {
        let sorted = sorted_finite(replicates)?;
        let jackknife: Vec<f64> = jackknife.iter().copied().filter(|x| x.is_finite()).collect();
        let centre = jackknife.iter().sum::<f64>() / jackknife.len().max(1) as f64;
        let (mut squares, mut cubes) = (0.0, 0.0);
        for d in jackknife.iter().map(|x| centre - x) {
            squares += d * d;
            cubes += d * d * d;
        }
        let slack = 1e-12 * (1.0 + estimate.abs());
        if squares <= slack * slack {
            return Ok(Interval { low: estimate, high: estimate });
        }
        let acceleration = cubes / (6.0 * squares.powf(1.5));
        let below = sorted.partition_point(|x| *x < estimate - slack) as f64;
        let at_most = sorted.partition_point(|x| *x <= estimate + slack) as f64;
        let total = sorted.len() as f64;
        let share = ((below + at_most) / (2.0 * total)).clamp(0.5 / total, 1.0 - 0.5 / total);
        let (z0, z) = (normal::quantile(share), z_of_level(self.level)?);
        let position = |z: f64| {
            let shifted = z0 + z;
            normal::cdf(z0 + shifted / (1.0 - acceleration * shifted))
        };
        Ok(Interval { low: quantile(&sorted, position(-z)), high: quantile(&sorted, position(z)) })
    }
}

fn mean_at(values: &[f64], indices: &[u32]) -> f64 {
    indices.iter().map(|&i| values[i as usize]).sum::<f64>() / indices.len() as f64
}

fn finite(values: &[f64]) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(i) => {
            Err(Error::config("values", format!("value {i} is {}: leave invalid prompts out", values[i])))
        }
        None => Ok(()),
    }
}

fn sorted_finite(replicates: &[f64]) -> Result<Vec<f64>> {
    let mut sorted: Vec<f64> = replicates.iter().copied().filter(|x| x.is_finite()).collect();
    if sorted.is_empty() {
        return Err(Error::config("replicates", "no resample gave a finite number: check the data"));
    }
    sorted.sort_by(f64::total_cmp);
    Ok(sorted)
}

/// The `p` quantile of sorted values by linear interpolation at (n − 1) p (type 7 of Hyndman and Fan 1996, as in
/// numpy).
pub(crate) fn quantile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = p.clamp(0.0, 1.0) * last as f64;
    let low = (position.floor() as usize).min(last);
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let values: Vec<f64> = (0..60).map(|i| f64::from(i % 3) / 2.0).collect();
        let of = |seed| Bootstrap { seed, ..Bootstrap::default() }.bca_mean(&values).unwrap();
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
    }

    #[test]
    fn equal_values_give_an_interval_without_width() {
        for interval in
            [Bootstrap::default().percentile_mean(&[1.0; 9]), Bootstrap::default().bca_mean(&[1.0; 9])]
        {
            assert_eq!(interval.unwrap(), Interval { low: 1.0, high: 1.0 });
        }
    }

    #[test]
    fn unusable_input_is_an_error() {
        let bootstrap = Bootstrap::default();
        assert!(bootstrap.percentile_mean(&[]).is_err());
        assert!(bootstrap.bca_mean(&[0.5, f64::NAN]).is_err());
        assert!(Bootstrap { resamples: 0, ..bootstrap }.percentile_mean(&[0.5]).is_err());
        assert!(Bootstrap { level: 1.0, ..bootstrap }.bca_mean(&[0.5, 1.0]).is_err());
        assert!(bootstrap.percentile_of(&[f64::NAN]).is_err());
    }
}
