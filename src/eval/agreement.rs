//! Agreement between judges, the consistency of a judge, and biases of a judge.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::comparison::{Comparison, Decision};
use crate::eval::interval::{Interval, Z95, mean_with_error, wilson_interval, wilson_of_preferences};

/// A share with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The share, a mean over prompts; `None` without prompts.
    pub share: Option<f64>,
    /// Wilson's interval ([`wilson_of_preferences`] if a prompt counts as a fraction); (0, 1) without prompts.
    pub interval: Interval,
    /// The number of prompts.
    pub count: usize,
}

impl Share {
    fn of_counts(part: usize, count: usize) -> Share {
        let (low, high) = wilson_interval(part, count);
        Share {
            share: (count > 0).then(|| part as f64 / count as f64),
            interval: Interval { low, high },
            count,
        }
    }

    fn of_values(values: &[f64]) -> Share {
        Share {
            share: mean_with_error(values).map(|m| m.mean),
            interval: wilson_of_preferences(values),
            count: values.len(),
        }
    }
}

/// Agreement of two judges beyond chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Kappa {
    /// κ = (pₒ − pₑ) / (1 − pₑ): 1 is full agreement, 0 is chance. `None` if pₑ = 1 (both judges always give one and
    /// the same verdict).
    pub kappa: Option<f64>,
    /// Asymptotic standard error of κ.
    pub standard_error: Option<f64>,
    /// Standard error under κ = 0, to test that hypothesis.
    pub standard_error_at_zero: Option<f64>,
    /// κ ± 1.96 standard errors, clipped to [−1, 1].
    pub interval: Option<Interval>,
    /// pₒ: the share of prompts on which both give the same verdict.
    pub agreement: Share,
    /// Rows: verdicts of the first judge; columns: of the second; in the order win, tie, loss.
    pub table: [[usize; 3]; 3],
}

/// Cohen's κ (1960) of two judges over win, tie and loss, unweighted, with the standard errors of Fleiss, Cohen and
/// Everitt 1969 ("Large sample standard errors of kappa and weighted kappa", Psychological Bulletin 72).
///
/// With pᵢⱼ the shares of the table and pᵢ., p.ⱼ its margins, the variance of κ is [Σᵢ pᵢᵢ (1 − (pᵢ. + p.ᵢ)(1 − κ))² +
/// (1 − κ)² Σᵢ≠ⱼ pᵢⱼ (p.ᵢ + pⱼ.)² − (κ − pₑ(1 − κ))²] / (n (1 − pₑ)²). Fails unless both judges have the same number of
/// verdicts, at least one.
pub fn cohen_kappa(first: &[Decision], second: &[Decision]) -> Result<Kappa> {
    if first.len() != second.len() || first.is_empty() {
        return Err(Error::config(
            "verdicts",
            format!(
                "{} of one judge and {} of the other: give the verdicts of both judges on the same prompts",
                first.len(),
                second.len()
            ),
        ));
    }
    let mut table = [[0usize; 3]; 3];
    for (a, b) in first.iter().zip(second) {
        table[*a as usize][*b as usize] += 1;
    }
    Ok(kappa_of(table))
}

/// [`cohen_kappa`] of a table of verdicts, which must not be empty.
pub(crate) fn kappa_of(table: [[usize; 3]; 3]) -> Kappa {
    let count = table.iter().flatten().sum::<usize>();
    let n = count as f64;
    let share = |i: usize, j: usize| table[i][j] as f64 / n;
    let row: [f64; 3] = std::array::from_fn(|i| (0..3).map(|j| share(i, j)).sum());
    let column: [f64; 3] = std::array::from_fn(|j| (0..3).map(|i| share(i, j)).sum());
    let agreed = (0..3).map(|i| table[i][i]).sum::<usize>();
    let observed = agreed as f64 / n;
    let chance: f64 = (0..3).map(|i| row[i] * column[i]).sum();
    let agreement = Share::of_counts(agreed, count);
    if chance > 1.0 - 1e-12 {
        return Kappa {
            kappa: None,
            standard_error: None,
            standard_error_at_zero: None,
            interval: None,
            agreement,
            table,
        };
    }
    let kappa = (observed - chance) / (1.0 - chance);
    let (mut same, mut other, mut both) = (0.0, 0.0, 0.0);
    for i in 0..3 {
        same += share(i, i) * (1.0 - (row[i] + column[i]) * (1.0 - kappa)).powi(2);
        both += row[i] * column[i] * (row[i] + column[i]);
        for j in (0..3).filter(|j| *j != i) {
            other += share(i, j) * (column[i] + row[j]).powi(2);
        }
    }
    let scale = n * (1.0 - chance) * (1.0 - chance);
    let correction = (kappa - chance * (1.0 - kappa)).powi(2);
    let variance = (same + (1.0 - kappa).powi(2) * other - correction) / scale;
    let standard_error = variance.max(0.0).sqrt();
    Kappa {
        kappa: Some(kappa),
        standard_error: Some(standard_error),
        standard_error_at_zero: Some(((chance + chance * chance - both).max(0.0) / scale).sqrt()),
        interval: Some(Interval {
            low: (kappa - Z95 * standard_error).max(-1.0),
            high: (kappa + Z95 * standard_error).min(1.0),
        }),
        agreement,
        table,
    }
}

/// The effect of the order in which the responses are shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OrderEffect {
    /// Prompts whose winner changes with the order: A in one, B in the other.
    pub flipped: Share,
    /// Prompts whose verdict changes at all: flips, and changes from or to a tie.
    pub changed: Share,
    /// The share of wins of the response shown first, counting ties as half; ½ without a position bias. Both orders of
    /// a prompt count as one value, so that the interval is over prompts.
    pub first_wins: Share,
}

/// The effect of the order, over the outcomes judged in both orders.
pub fn order_effect(outcomes: &[Comparison]) -> OrderEffect {
    let orders: Vec<[f64; 2]> = outcomes.iter().filter_map(Comparison::orders).collect();
    let verdicts = || orders.iter().map(|[a, b]| (Decision::of(*a), Decision::of(*b)));
    let flipped =
        verdicts().filter(|v| matches!(v, (Decision::Win, Decision::Loss) | (Decision::Loss, Decision::Win)));
    let first: Vec<f64> = orders.iter().map(|[a, b]| 0.5 * (a + 1.0 - b)).collect();
    OrderEffect {
        flipped: Share::of_counts(flipped.count(), orders.len()),
        changed: Share::of_counts(verdicts().filter(|(a, b)| a != b).count(), orders.len()),
        first_wins: Share::of_values(&first),
    }
}

/// The share of wins of the longer response, counting ties as half, over the valid outcomes whose lengths differ. It is
/// ½ if length does not matter (and is not confounded with quality, see `length_control`).
pub fn length_preference(outcomes: &[Comparison]) -> Share {
    let longer: Vec<f64> = outcomes
        .iter()
        .filter(|o| o.length_a != o.length_b)
        .filter_map(|o| o.preference().map(|p| if o.length_a > o.length_b { p } else { 1.0 - p }))
        .collect();
    Share::of_values(&longer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(a_first: f64, b_first: f64, lengths: (f64, f64)) -> Comparison {
        Comparison::both_orders(Some(a_first), Some(b_first), lengths.0, lengths.1).unwrap()
    }

    #[test]
    fn a_judge_that_always_prefers_the_first_response_flips_every_prompt() {
        let outcomes = [judged(1.0, 0.0, (3.0, 2.0)); 20];
        let effect = order_effect(&outcomes);
        assert_eq!(
            (effect.flipped.share, effect.changed.share, effect.first_wins.share),
            (Some(1.0), Some(1.0), Some(1.0))
        );
        assert!(effect.first_wins.interval.low > 0.8);
        assert_eq!(length_preference(&outcomes).share, Some(0.5));
    }

    #[test]
    fn a_change_from_or_to_a_tie_is_not_a_flip() {
        let effect = order_effect(&[judged(1.0, 0.5, (1.0, 1.0)), judged(1.0, 1.0, (1.0, 1.0))]);
        assert_eq!((effect.flipped.share, effect.changed.share), (Some(0.0), Some(0.5)));
        assert_eq!(effect.first_wins.share, Some(0.625));
    }

    #[test]
    fn the_length_preference_is_that_of_the_longer_response() {
        let outcomes =
            [judged(1.0, 1.0, (9.0, 2.0)), judged(0.0, 0.0, (2.0, 9.0)), judged(0.0, 0.0, (5.0, 5.0))];
        let share = length_preference(&outcomes);
        assert_eq!((share.share, share.count), (Some(1.0), 2));
        assert_eq!(length_preference(&[]).share, None);
    }

    #[test]
    fn judges_with_constant_verdicts_have_no_kappa() {
        let same = cohen_kappa(&[Decision::Win; 4], &[Decision::Win; 4]).unwrap();
        assert_eq!((same.kappa, same.agreement.share), (None, Some(1.0)));
        let opposite =
            cohen_kappa(&[Decision::Win, Decision::Loss], &[Decision::Loss, Decision::Win]).unwrap();
        assert_eq!(opposite.kappa, Some(-1.0));
        assert!(cohen_kappa(&[], &[]).is_err() && cohen_kappa(&[Decision::Tie], &[]).is_err());
    }
}
