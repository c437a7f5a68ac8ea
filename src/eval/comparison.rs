//! The outcome of comparing the responses of A and B to a prompt, and counts over all prompts.

use std::cmp::Ordering;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::interval::{Interval, wilson_of_preferences};
use crate::judge::side_of_tie;

/// The outcome of a comparison as win, tie or loss of A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// A's response is better.
    Win,
    /// Neither is better.
    Tie,
    /// B's response is better.
    Loss,
}

impl Decision {
    /// A win above ½, a loss below ½, and a tie within 1e-6 of ½, as a judge's [`Verdict`](crate::judge::Verdict).
    pub fn of(preference: f64) -> Decision {
        match side_of_tie(preference) {
            Ordering::Greater => Decision::Win,
            Ordering::Equal => Decision::Tie,
            Ordering::Less => Decision::Loss,
        }
    }

    /// 1 for a win, ½ for a tie, 0 for a loss.
    pub fn preference(self) -> f64 {
        match self {
            Decision::Win => 1.0,
            Decision::Tie => 0.5,
            Decision::Loss => 0.0,
        }
    }

    /// "win", "tie" or "loss".
    pub fn name(self) -> &'static str {
        match self {
            Decision::Win => "win",
            Decision::Tie => "tie",
            Decision::Loss => "loss",
        }
    }
}

/// The outcome for one prompt. Preferences are of A over B, in [0, 1]. Lengths are all in the same unit (characters or
/// tokens).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    preference: Option<f64>,
    /// Preferences with A's response shown first, and with B's first.
    orders: Option<[f64; 2]>,
    /// Length of A's response.
    pub length_a: f64,
    /// Length of B's response.
    pub length_b: f64,
}

impl Comparison {
    /// A prompt judged in both orders. The preference is the mean of both, so that a position bias cancels.
    ///
    /// The outcome is invalid unless both orders gave a verdict, because a single order has that bias. Fails for a
    /// number outside [0, 1] or a length that is not finite.
    pub fn both_orders(
        a_first: Option<f64>,
        b_first: Option<f64>,
        length_a: f64,
        length_b: f64,
    ) -> Result<Comparison> {
        let orders = match (check(a_first)?, check(b_first)?) {
            (Some(a), Some(b)) => Some([a, b]),
            _ => None,
        };
        Comparison::build(orders.map(|[a, b]| 0.5 * (a + b)), orders, length_a, length_b)
    }

    /// A prompt judged once, in an unknown or random order (AlpacaEval). Without a preference it is invalid.
    pub fn single(preference: Option<f64>, length_a: f64, length_b: f64) -> Result<Comparison> {
        Comparison::build(check(preference)?, None, length_a, length_b)
    }

    fn build(
        preference: Option<f64>,
        orders: Option<[f64; 2]>,
        length_a: f64,
        length_b: f64,
    ) -> Result<Comparison> {
        for length in [length_a, length_b] {
            if !length.is_finite() || length < 0.0 {
                return Err(Error::config(
                    "length",
                    format!("{length} is not a length: give a count of 0 or more"),
                ));
            }
        }
        Ok(Comparison { preference, orders, length_a, length_b })
    }

    /// Preference of A over B in [0, 1]; `None` for an invalid outcome.
    pub fn preference(&self) -> Option<f64> {
        self.preference
    }

    /// Preferences of A with A's response first and with B's first, if both orders were judged.
    pub fn orders(&self) -> Option<[f64; 2]> {
        self.orders
    }

    /// Win, tie or loss; `None` for an invalid outcome.
    pub fn decision(&self) -> Option<Decision> {
        self.preference.map(Decision::of)
    }
}

fn check(preference: Option<f64>) -> Result<Option<f64>> {
    match preference {
        Some(p) if !(0.0..=1.0).contains(&p) => Err(Error::config(
            "preference",
            format!("{p} is outside [0, 1]: 1 is a win of A, ½ a tie and 0 a loss"),
        )),
        other => Ok(other),
    }
}

/// The preferences of the valid outcomes.
pub fn preferences(outcomes: &[Comparison]) -> Vec<f64> {
    outcomes.iter().filter_map(Comparison::preference).collect()
}

/// Counts of wins, ties, losses and invalid outcomes, from A's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Decisions {
    /// Prompts that A won.
    pub wins: usize,
    /// Prompts without a winner.
    pub ties: usize,
    /// Prompts that B won.
    pub losses: usize,
    /// Prompts without a usable verdict. They are excluded from all shares.
    pub invalid: usize,
}

impl Decisions {
    /// Counts `outcomes`.
    pub fn of(outcomes: &[Comparison]) -> Decisions {
        let mut tally = Decisions::default();
        for outcome in outcomes {
            match outcome.decision() {
                Some(Decision::Win) => tally.wins += 1,
                Some(Decision::Tie) => tally.ties += 1,
                Some(Decision::Loss) => tally.losses += 1,
                None => tally.invalid += 1,
            }
        }
        tally
    }

    /// Prompts with a usable verdict, ties included.
    pub fn decided(&self) -> usize {
        self.wins + self.ties + self.losses
    }

    /// (wins + ties/2) / decided: AlpacaEval's `discrete_win_rate` (as a share). `None` if no prompt was decided.
    pub fn win_rate(&self) -> Option<f64> {
        let decided = self.decided();
        (decided > 0).then(|| (self.wins as f64 + 0.5 * self.ties as f64) / decided as f64)
    }
}

/// The outcomes whose difference in length is in a range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LengthBucket {
    /// The smallest difference in the bucket: the length of A's response minus that of B's.
    pub low: f64,
    /// The largest difference in the bucket.
    pub high: f64,
    /// Counts in the bucket.
    pub tally: Decisions,
    /// Mean preference for A in the bucket; `None` if no prompt in it was decided.
    pub mean_preference: Option<f64>,
    /// 95 % interval of that mean ([`wilson_of_preferences`]).
    pub interval: Interval,
}

/// Win rates in at most `count` buckets of about the same number of prompts, in ascending order of the length of A's
/// response minus that of B's. A win rate that rises from bucket to bucket indicates a length bias (Guo et al. 2024,
/// arXiv 2402.04792, use buckets to check whether online feedback is better or only longer).
///
/// Prompts with equal differences stay together, so that there may be fewer buckets, of unequal size. Invalid outcomes
/// are counted in the bucket of their lengths. Fails for `count` = 0.
pub fn length_buckets(outcomes: &[Comparison], count: usize) -> Result<Vec<LengthBucket>> {
    if count == 0 {
        return Err(Error::config("buckets", "0 is too few: give 1 or more"));
    }
    let mut sorted: Vec<(f64, Comparison)> = outcomes.iter().map(|o| (o.length_a - o.length_b, *o)).collect();
    sorted.sort_by(|x, y| x.0.total_cmp(&y.0));
    let mut buckets = Vec::new();
    let mut start = 0;
    for bucket in 1..=count {
        // The first `bucket`/`count` of the prompts, and those with the same difference as the last of them.
        let mut end = (sorted.len() as u128 * bucket as u128 / count as u128) as usize;
        while end > start && end < sorted.len() && sorted[end].0 == sorted[end - 1].0 {
            end += 1;
        }
        if end > start {
            buckets.push(bucket_of(&sorted[start..end]));
            start = end;
        }
    }
    Ok(buckets)
}

fn bucket_of(rows: &[(f64, Comparison)]) -> LengthBucket {
    let outcomes: Vec<Comparison> = rows.iter().map(|row| row.1).collect();
    let preferences = preferences(&outcomes);
    LengthBucket {
        low: rows.first().map_or(f64::NAN, |row| row.0),
        high: rows.last().map_or(f64::NAN, |row| row.0),
        tally: Decisions::of(&outcomes),
        mean_preference: (!preferences.is_empty())
            .then(|| preferences.iter().sum::<f64>() / preferences.len() as f64),
        interval: wilson_of_preferences(&preferences),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(a_first: f64, b_first: f64) -> Comparison {
        Comparison::both_orders(Some(a_first), Some(b_first), 10.0, 8.0).unwrap()
    }

    #[test]
    fn ties_are_half_wins_and_invalid_prompts_are_in_no_share() {
        let invalid = Comparison::both_orders(Some(1.0), None, 1.0, 1.0).unwrap();
        let outcomes = [judged(1.0, 1.0), judged(1.0, 0.0), judged(0.0, 0.0), judged(0.9, 0.2), invalid];
        let tally = Decisions::of(&outcomes);
        assert_eq!(tally, Decisions { wins: 2, ties: 1, losses: 1, invalid: 1 });
        assert_eq!(tally.win_rate(), Some(0.625));
        assert_eq!(Decisions::of(&[invalid]).win_rate(), None);
    }

    #[test]
    fn a_preference_outside_0_to_1_is_an_error() {
        assert!(Comparison::single(Some(1.5), 1.0, 1.0).is_err());
        assert!(Comparison::both_orders(Some(f64::NAN), None, 1.0, 1.0).is_err());
        assert!(Comparison::single(None, f64::INFINITY, 1.0).is_err());
    }

    #[test]
    fn buckets_are_of_equal_size_and_keep_equal_lengths_together() {
        let outcomes: Vec<Comparison> = (0..100)
            .map(|i| Comparison::single(Some(f64::from(u8::from(i >= 50))), f64::from(i), 5.0).unwrap())
            .collect();
        let buckets = length_buckets(&outcomes, 6).unwrap();
        assert_eq!(buckets.iter().map(|b| b.tally.decided()).collect::<Vec<_>>(), [16, 17, 17, 16, 17, 17]);
        assert_eq!((buckets[0].mean_preference, buckets[5].mean_preference), (Some(0.0), Some(1.0)));
        let same: Vec<Comparison> = (0..9).map(|_| judged(1.0, 1.0)).collect();
        assert_eq!(length_buckets(&same, 4).unwrap().len(), 1);
        assert!(length_buckets(&[], 3).unwrap().is_empty());
        assert!(length_buckets(&same, 0).is_err());
    }
}
