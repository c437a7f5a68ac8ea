//! Limits on requests or tokens per minute: a token bucket that stays below the limit in every window of 60 seconds.

use std::time::{Duration, Instant};

/// The burst, as a share of the amount per minute.
const BURST: f64 = 0.1;

/// A token bucket for `per_minute`. Its capacity (the burst) plus the refill of one minute equal `per_minute`; a bucket
/// with the full capacity would let twice as much pass in its first minute.
#[derive(Debug)]
pub(super) struct Bucket {
    burst: f64,
    per_second: f64,
    level: f64,
    /// When `level` was computed.
    at: Instant,
}

impl Bucket {
    pub fn new(per_minute: u32, now: Instant) -> Bucket {
        let per_minute = f64::from(per_minute.max(1));
        let burst = (per_minute * BURST).floor().max(1.0);
        // Plus 1, because the last refill of a minute is used in the next one.
        Bucket { burst, per_second: (per_minute - burst + 1.0) / 60.0, level: burst, at: now }
    }

    fn level(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.level + elapsed * self.per_second).min(self.burst)
    }

    /// How long until `amount` may be taken. More than the burst may be taken from a full bucket, which then goes into
    /// debt.
    pub fn wait(&self, amount: f64, now: Instant) -> Duration {
        let missing = amount.min(self.burst) - self.level(now);
        // Tolerance for rounding errors.
        if missing <= 1e-9 { Duration::ZERO } else { Duration::from_secs_f64(missing / self.per_second) }
    }

    /// Takes `amount`; a negative amount is given back.
    pub fn take(&mut self, amount: f64, now: Instant) {
        self.level = (self.level(now) - amount).min(self.burst);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times in seconds at which `takes` amounts are taken, each as early as possible.
    fn greedy(per_minute: u32, amount: f64, takes: usize) -> Vec<f64> {
        let start = Instant::now();
        let (mut now, mut bucket) = (start, Bucket::new(per_minute, start));
        let mut one = || {
            while bucket.wait(amount, now) > Duration::ZERO {
                now += bucket.wait(amount, now).max(Duration::from_micros(1));
            }
            bucket.take(amount, now);
            (now - start).as_secs_f64()
        };
        (0..takes).map(|_| one()).collect()
    }

    #[test]
    fn no_minute_exceeds_the_limit_and_at_least_90_percent_of_it_is_used() {
        for per_minute in [1, 2, 3, 7, 10, 60, 600, 5000] {
            let takes = 4 * per_minute as usize + 2;
            let times = greedy(per_minute, 1.0, takes);
            for start in &times {
                let within = times.iter().filter(|time| (*start..*start + 59.999).contains(*time)).count();
                assert!(within <= per_minute as usize, "{per_minute}: {within} from {start}");
            }
            // 90 % of the rate.
            assert!(
                times[takes - 1] < 60.0 * takes as f64 / (0.9 * f64::from(per_minute)),
                "{per_minute}: {times:?}"
            );
        }
    }

    #[test]
    fn an_amount_above_the_burst_is_taken_alone_and_delays_the_next() {
        let times = greedy(1000, 500.0, 3);
        assert!(times[0] == 0.0 && times[1] > 30.0 && times[2] > times[1] + 30.0, "{times:?}");
        let now = Instant::now();
        let mut bucket = Bucket::new(1000, now);
        bucket.take(100.0, now);
        bucket.take(-90.0, now);
        assert_eq!((bucket.wait(90.0, now), bucket.wait(91.0, now) > Duration::ZERO), (Duration::ZERO, true));
    }
}
