//! Requests or tokens a minute: a token bucket that no window of 60 seconds exceeds.

use std::time::{Duration, Instant};

/// The share of a minute's amount that may be taken at once.
const BURST: f64 = 0.1;

/// A token bucket of `per_minute`. It holds a burst, and refills so that burst and refill together are a minute's amount: a
/// bucket that holds the whole amount would let twice as much pass in its first minute.
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
        // The 1: what is refilled at the very end of a minute is taken in the next.
        Bucket { burst, per_second: (per_minute - burst + 1.0) / 60.0, level: burst, at: now }
    }

    fn level(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.level + elapsed * self.per_second).min(self.burst)
    }

    /// How long until `amount` may be taken. More than a burst may be taken of a full bucket, which then is in debt.
    pub fn wait(&self, amount: f64, now: Instant) -> Duration {
        let missing = amount.min(self.burst) - self.level(now);
        // A billionth of a request is a rounding error.
        if missing <= 1e-9 { Duration::ZERO } else { Duration::from_secs_f64(missing / self.per_second) }
    }

    /// Takes `amount`; a negative one is given back.
    pub fn take(&mut self, amount: f64, now: Instant) {
        self.level = (self.level(now) - amount).min(self.burst);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in seconds at which one after the other is taken, each as early as possible.
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
    fn no_minute_has_more_requests_than_are_allowed_and_little_is_wasted() {
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
    fn a_long_text_is_sent_alone_and_pays_its_debt() {
        let times = greedy(1000, 500.0, 3);
        assert!(times[0] == 0.0 && times[1] > 30.0 && times[2] > times[1] + 30.0, "{times:?}");
        let now = Instant::now();
        let mut bucket = Bucket::new(1000, now);
        bucket.take(100.0, now);
        bucket.take(-90.0, now);
        assert_eq!((bucket.wait(90.0, now), bucket.wait(91.0, now) > Duration::ZERO), (Duration::ZERO, true));
    }
}
