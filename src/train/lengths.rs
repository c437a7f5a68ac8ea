//! Statistics of lengths. Counts of each length give exact quantiles in little memory.

use std::collections::BTreeMap;

use serde::Serialize;

/// Lengths in tokens with their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    counts: BTreeMap<usize, usize>,
    all: usize,
}

/// A summary of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LengthSummary {
    /// The smallest length.
    pub min: usize,
    /// The mean, rounded to one decimal.
    pub mean: f64,
    /// The median.
    pub median: usize,
    /// The 95th percentile.
    pub p95: usize,
    /// The largest length.
    pub max: usize,
}

impl Lengths {
    /// Adds a length.
    pub fn push(&mut self, length: usize) {
        *self.counts.entry(length).or_default() += 1;
        self.all += 1;
    }

    /// The largest length.
    pub fn max(&self) -> Option<usize> {
        self.counts.keys().next_back().copied()
    }

    fn sum(&self) -> usize {
        self.counts.iter().map(|(length, count)| length * count).sum()
    }

    /// The length at `index` in ascending order.
    fn at(&self, index: usize) -> usize {
        let mut before = 0;
        let reaches = |(_, count): &(&usize, &usize)| {
            before += **count;
            before > index
        };
        self.counts.iter().find(reaches).map_or(0, |(length, _)| *length)
    }

    /// The summary; `None` if there are no lengths.
    pub fn summary(&self) -> Option<LengthSummary> {
        let (min, max) = (*self.counts.keys().next()?, self.max()?);
        let mean = self.sum() as f64 / self.all as f64;
        let at = |q: f64| self.at(((self.all - 1) as f64 * q).round() as usize);
        Some(LengthSummary { min, mean: (mean * 10.0).round() / 10.0, median: at(0.5), p95: at(0.95), max })
    }

    /// The sum of the `count` longest, repeating all lengths equally if there are fewer.
    pub fn sum_of_longest(&self, count: usize) -> usize {
        if self.all == 0 {
            return 0;
        }
        let mut left = count % self.all;
        let mut sum = count / self.all * self.sum();
        for (length, count) in self.counts.iter().rev() {
            let taken = left.min(*count);
            sum += taken * length;
            left -= taken;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_sums_are_those_of_the_sorted_list() {
        let mut state = 7u32;
        for count in [1, 2, 3, 19, 20, 21, 200] {
            let (mut list, mut lengths) = (Vec::new(), Lengths::default());
            for _ in 0..count {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                list.push((state >> 24) as usize % 50);
                lengths.push(list[list.len() - 1]);
            }
            list.sort_unstable();
            let at = |q: f64| list[((list.len() - 1) as f64 * q).round() as usize];
            let summary = lengths.summary().unwrap();
            assert_eq!((summary.min, summary.max), (list[0], list[list.len() - 1]));
            assert_eq!((summary.median, summary.p95), (at(0.5), at(0.95)));
            for longest in [0, 1, 2, 5, 30, 401] {
                let cycled: usize = (0..longest).map(|i| list[list.len() - 1 - i % list.len()]).sum();
                assert_eq!(lengths.sum_of_longest(longest), cycled, "{longest} of {count}");
            }
        }
        assert_eq!(Lengths::default().summary(), None);
    }
}
