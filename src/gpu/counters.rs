//! Counters of the objects that were created and of the work that was run on a device.

use web_time::Duration;

use super::launch::Work;

/// The number of objects created on a device. Replaying a plan creates nothing but submits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Buffers, including those for read-backs.
    pub buffers: u64,
    /// Compute pipelines.
    pub pipelines: u64,
    /// Bind groups.
    pub bind_groups: u64,
    /// Submits.
    pub submits: u64,
}

/// The work that was run on a device, and how long callers waited for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    /// Launches; one that is split along its rows counts once.
    pub launches: u64,
    /// Their work, as stated by the ops.
    pub work: Work,
    /// Bytes that were uploaded.
    pub uploaded: u64,
    /// How long callers were blocked until the GPU was done.
    pub waited: Duration,
    /// The largest number of submits in flight on an application's device; not counted on a device of the crate's own.
    pub most_in_flight: usize,
    /// How long the submits of plans occupied the GPU.
    pub submit_times: SubmitTimes,
}

/// A histogram of the times of submits, where the GPU has timestamps.
#[derive(Clone, Copy, Debug)]
pub struct SubmitTimes {
    counts: [u32; BUCKETS],
    longest_ms: f64,
}

/// Buckets per octave, from 2⁻⁴ ms to 2⁸ ms.
const PER_OCTAVE: f64 = 12.0;
const BUCKETS: usize = 12 * 12;

impl Default for SubmitTimes {
    fn default() -> SubmitTimes {
        SubmitTimes { counts: [0; BUCKETS], longest_ms: 0.0 }
    }
}

impl SubmitTimes {
    pub(super) fn add(&mut self, ms: f64) {
        let bucket = ((ms.log2() + 4.0) * PER_OCTAVE).clamp(0.0, BUCKETS as f64 - 1.0);
        self.counts[bucket as usize] += 1;
        self.longest_ms = self.longest_ms.max(ms);
    }

    /// The number of timed submits.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|n| u64::from(*n)).sum()
    }

    /// The time in milliseconds that this share of the submits did not exceed, to within 6 %: 0.5 gives the median.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        let bucket = self.counts.iter().position(|n| {
            below += u64::from(*n);
            below >= rank
        });
        bucket.map_or(0.0, |i| ((i as f64 + 1.0) / PER_OCTAVE - 4.0).exp2().min(self.longest_ms))
    }

    /// The longest time, in milliseconds.
    pub fn longest(&self) -> f64 {
        self.longest_ms
    }

    /// Returns the times recorded after `before`, an earlier copy. The longest time is that of all.
    pub fn since(&self, before: &SubmitTimes) -> SubmitTimes {
        let counts = std::array::from_fn(|i| self.counts[i] - before.counts[i]);
        SubmitTimes { counts, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_of_submit_times_are_right_to_six_percent() {
        let mut times = SubmitTimes::default();
        (1..=1000).for_each(|i| times.add(f64::from(i) * 0.01));
        assert_eq!((times.count(), times.longest()), (1000, 10.0));
        for (share, ms) in [(0.5, 5.0), (0.99, 9.9), (1.0, 10.0)] {
            assert!((times.quantile(share) / ms - 1.0).abs() < 0.06, "{share}: {}", times.quantile(share));
        }
        assert_eq!(SubmitTimes::default().quantile(0.5), 0.0);
    }
}
