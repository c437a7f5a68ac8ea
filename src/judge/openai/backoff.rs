//! How long to wait before a retry: exponential backoff with full jitter, so that clients that failed together do not
//! retry together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::eval::random::SplitMix;

/// The maximum wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Random waits.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    random: SplitMix,
}

impl Backoff {
    /// The first wait is at most `base`.
    pub fn new(base: Duration) -> Backoff {
        Backoff { base, random: SplitMix::new(RandomState::new().hash_one(0), 0) }
    }

    /// The wait after `failures` failures (at least 1): uniform between 0 and `base` · 2^(failures − 1), at most 30 s.
    pub fn wait(&mut self, failures: u32) -> Duration {
        let most = self.base.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LONGEST);
        most.mul_f64(self.random.uniform())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_are_uniform_from_zero() {
        let mut backoff = Backoff { base: Duration::from_millis(500), random: SplitMix::new(7, 0) };
        for (failures, most) in [(1, 0.5), (2, 1.0), (4, 4.0), (6, 16.0), (7, 30.0), (u32::MAX, 30.0)] {
            let waits: Vec<f64> = (0..1000).map(|_| backoff.wait(failures).as_secs_f64()).collect();
            let mean = waits.iter().sum::<f64>() / 1000.0;
            assert!(waits.iter().all(|wait| (0.0..most).contains(wait)), "{failures}");
            assert!((mean / most - 0.5).abs() < 0.05, "{failures}: {mean}");
        }
    }
}
