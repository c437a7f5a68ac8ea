//! Random numbers of the small world: a function of seed, item and count that gives the same values on every machine.

use crate::reference::uniform;

/// A stream of random numbers. Streams of different seeds or items are independent.
#[derive(Clone, Debug)]
pub struct Draw {
    seed: u32,
    item: u32,
    count: u32,
}

impl Draw {
    /// The stream of item number `item` under `seed`.
    pub fn new(seed: u32, item: u32) -> Draw {
        Draw { seed, item, count: 0 }
    }

    /// A number in the open interval (0, 1).
    pub fn unit(&mut self) -> f64 {
        self.count += 1;
        uniform(self.seed, self.item, 0x0057_0AF1, self.count - 1)
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// A number in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    /// One of `options`.
    pub fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.below(options.len())]
    }

    /// A random index, with probabilities proportional to the weights.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        let found = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        found.unwrap_or(weights.len() - 1)
    }

    /// `k` numbers in 0..n, ascending; every subset is equally probable.
    pub fn subset(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut left = k;
        let taken = (0..n).filter(|i| {
            let take = self.unit() * ((n - i) as f64) < left as f64;
            left -= usize::from(take);
            take
        });
        taken.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_reproducible_and_differs_from_others() {
        let take = |seed, item| {
            let mut draw = Draw::new(seed, item);
            (0..8).map(|_| draw.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(1, 3));
        assert_ne!(take(1, 2), take(2, 2));
    }

    #[test]
    fn subsets_are_ascending_of_the_right_size_and_uniform() {
        let mut counts = [0; 5];
        for item in 0..5000 {
            let subset = Draw::new(9, item).subset(5, 2);
            assert!(subset.len() == 2 && subset[0] < subset[1], "{subset:?}");
            subset.iter().for_each(|&i| counts[i] += 1);
        }
        assert!(counts.iter().all(|n| (1850..2150).contains(n)), "{counts:?}");
    }

    #[test]
    fn weights_are_probabilities() {
        let mut draw = Draw::new(5, 0);
        let hits = (0..10_000).filter(|_| draw.weighted(&[1.0, 3.0, 0.0]) == 1).count();
        assert!((7300..7700).contains(&hits), "{hits}");
        assert_eq!(draw.weighted(&[0.0, 0.0, 2.0]), 2);
    }
}
