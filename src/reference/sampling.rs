//! Sampling: chooses the next token from a row of logits.

use super::random::uniform;

/// How to sample. Filters apply in Hugging Face's order: top-k, top-p, min-p. Tied logits are kept or dropped together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    /// Logits are divided by it; 0 takes the largest logit, and the lowest id among equals.
    pub temperature: f64,
    /// Keeps the logits that are not below the k-th largest; 0 keeps all.
    pub top_k: u32,
    /// Keeps a token if the probability mass of strictly larger logits is below this; 1 keeps all.
    pub top_p: f64,
    /// Keeps probabilities of at least this fraction of the largest; 0 keeps all.
    pub min_p: f64,
}

impl Default for SamplingParams {
    /// Plain softmax sampling.
    fn default() -> SamplingParams {
        SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

/// The value that a logit divided by the temperature must reach to be kept; minus infinity if all are kept. The largest
/// logit is always kept. At temperature 0 it is the largest logit itself. logits (V).
pub fn filter_threshold(logits: &[f64], params: SamplingParams) -> f64 {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    if params.temperature == 0.0 {
        return sorted[0];
    }
    sorted.iter_mut().for_each(|z| *z /= params.temperature);
    let largest = sorted[0];
    let mut threshold = f64::NEG_INFINITY;
    if params.top_k > 0 && (params.top_k as usize) < sorted.len() {
        threshold = sorted[params.top_k as usize - 1];
        sorted.retain(|z| *z >= threshold);
    }
    if params.top_p < 1.0 {
        let total: f64 = sorted.iter().map(|z| (z - largest).exp()).sum();
        // Mass of the logits above the current one, and of those equal to it seen so far.
        let (mut above, mut equal) = (0.0, 0.0);
        let mut current = largest;
        for z in sorted {
            if z < current {
                above += equal;
                equal = 0.0;
                if above / total >= params.top_p {
                    break;
                }
                current = z;
            }
            equal += (z - largest).exp();
        }
        threshold = current;
    }
    if params.min_p > 0.0 {
        threshold = threshold.max(largest + params.min_p.ln());
    }
    threshold.min(largest)
}

/// Samples a token id with the Gumbel-max trick: the largest of logit / temperature + g_i among the kept, g_i =
/// -ln(-ln(uniform(seed, sequence, position, i))); the lowest id wins ties. logits (V).
pub fn sample(logits: &[f64], params: SamplingParams, seed: u32, sequence: u32, position: u32) -> u32 {
    if params.temperature == 0.0 {
        return argmax(logits.iter().copied());
    }
    let threshold = filter_threshold(logits, params);
    let noise = |index: usize| -(-uniform(seed, sequence, position, index as u32).ln()).ln();
    argmax(logits.iter().enumerate().map(|(index, logit)| {
        let z = logit / params.temperature;
        if z >= threshold { z + noise(index) } else { f64::NEG_INFINITY }
    }))
}

/// Returns the index of the largest value, the first among equals.
fn argmax(values: impl Iterator<Item = f64>) -> u32 {
    let (mut best, mut largest) = (0, f64::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > largest {
            (best, largest) = (index as u32, value);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, chi_square_limit};
    use super::*;

    /// ln of probabilities 0.1, 0.4, 0.2, 0.2, 0.1.
    fn logits() -> Vec<f64> {
        [0.1, 0.4, 0.2, 0.2, 0.1].map(f64::ln).to_vec()
    }

    fn kept(params: SamplingParams) -> Vec<usize> {
        let threshold = filter_threshold(&logits(), params);
        (0..5).filter(|&i| logits()[i] / params.temperature >= threshold).collect()
    }

    #[test]
    fn filters_keep_ties_together() {
        let all = SamplingParams::default();
        assert_eq!(kept(all), [0, 1, 2, 3, 4]);
        assert_eq!(kept(SamplingParams { top_k: 1, ..all }), [1]);
        assert_eq!(kept(SamplingParams { top_k: 2, ..all }), [1, 2, 3]);
        assert_eq!(kept(SamplingParams { top_k: 3, ..all }), [1, 2, 3]);
        assert_eq!(kept(SamplingParams { top_k: 9, ..all }), [0, 1, 2, 3, 4]);
        assert_eq!(kept(SamplingParams { top_p: 0.0, ..all }), [1]);
        assert_eq!(kept(SamplingParams { top_p: 0.39, ..all }), [1]);
        assert_eq!(kept(SamplingParams { top_p: 0.41, ..all }), [1, 2, 3]);
        assert_eq!(kept(SamplingParams { top_p: 0.79, ..all }), [1, 2, 3]);
        assert_eq!(kept(SamplingParams { top_p: 0.81, ..all }), [0, 1, 2, 3, 4]);
        assert_eq!(kept(SamplingParams { min_p: 0.26, ..all }), [1, 2, 3]);
        assert_eq!(kept(SamplingParams { min_p: 0.51, ..all }), [1]);
        assert_eq!(kept(SamplingParams { min_p: 2.0, ..all }), [1]);
    }

    #[test]
    fn top_p_counts_mass_within_top_k() {
        // Among 0.4, 0.2, 0.2 the largest has half the mass, not 0.4.
        let params = SamplingParams { top_k: 3, top_p: 0.45, ..SamplingParams::default() };
        assert_eq!(kept(params), [1]);
        assert_eq!(kept(SamplingParams { top_p: 0.55, ..params }), [1, 2, 3]);
    }

    #[test]
    fn temperature_comes_before_the_filters() {
        // At temperature 1/2 the probabilities are 1, 16, 4, 4, 1 out of 26.
        let params = SamplingParams { temperature: 0.5, top_p: 0.6, ..SamplingParams::default() };
        assert_eq!(kept(params), [1]);
        assert_close(&[filter_threshold(&logits(), params)], &[2.0 * 0.4_f64.ln()]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let params = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        assert_eq!(sample(&[1.0, 3.0, 2.0, 3.0], params, 1, 2, 3), 1);
        assert_eq!(filter_threshold(&[1.0, 3.0, 2.0, 3.0], params), 3.0);
    }

    #[test]
    fn samples_follow_the_filtered_softmax() {
        let (v, draws, seed) = (23, 40_000, 110);
        let logits: Vec<f64> = Random::new(seed).values(v).iter().map(|x| 2.0 * x).collect();
        let all = SamplingParams::default();
        let cases = [
            all,
            SamplingParams { temperature: 0.7, top_k: 9, ..all },
            SamplingParams { temperature: 0.9, top_p: 0.8, ..all },
            SamplingParams { temperature: 1.5, top_k: 15, top_p: 0.9, min_p: 0.2 },
        ];
        for params in cases {
            let threshold = filter_threshold(&logits, params);
            let weights: Vec<f64> = logits
                .iter()
                .map(|logit| logit / params.temperature)
                .map(|z| if z >= threshold { z.exp() } else { 0.0 })
                .collect();
            let total: f64 = weights.iter().sum();
            let mut counts = vec![0.0; v];
            for draw in 0..draws {
                counts[sample(&logits, params, seed, draw / 100, draw % 100) as usize] += 1.0;
            }
            let mut statistic = 0.0;
            for (id, (count, weight)) in counts.iter().zip(&weights).enumerate() {
                let expected = f64::from(draws) * weight / total;
                assert!(
                    expected > 0.0 || *count == 0.0,
                    "seed {seed}, {params:?}: filtered id {id} was drawn"
                );
                statistic += if expected > 0.0 { (count - expected).powi(2) / expected } else { 0.0 };
            }
            let limit = chi_square_limit(weights.iter().filter(|w| **w > 0.0).count() - 1);
            assert!(statistic < limit, "seed {seed}, {params:?}: {statistic} should be below {limit}");
        }
    }

    #[test]
    fn sampling_repeats_for_the_same_counters_only() {
        let draw = |seed, sequence| -> Vec<u32> {
            (0..50)
                .map(|position| sample(&logits(), SamplingParams::default(), seed, sequence, position))
                .collect()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(2, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
    }
}
