//! A circuit breaker: a server that fails several times in a row is left alone for a while, then tried with one request.

use std::time::{Duration, Instant};

/// The longest time that a server is left alone.
const LONGEST: Duration = Duration::from_secs(120);
/// Successes after which a server that had failed is as good as new.
const RECOVERED: u32 = 10;

/// Whether a server is asked.
#[derive(Debug)]
pub(super) struct Breaker {
    after: u32,
    first_hold: Duration,
    /// How long it is left alone next.
    hold: Duration,
    failures: u32,
    successes: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    /// One request is on its way to see.
    probing: bool,
}

/// What a result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Left alone for so long, for the first time since it was well.
    Opened(Duration),
    /// Asked again as before.
    Closed,
}

impl Breaker {
    /// Opens after so many failures in a row, at first for `hold`.
    pub fn new(after: u32, hold: Duration) -> Breaker {
        let hold = hold.min(LONGEST);
        Breaker { after, first_hold: hold, hold, failures: 0, successes: 0, open: None }
    }

    /// Whether requests go out as usual.
    pub fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// Whether one more request may go out; if not, when to ask again, where time alone changes that.
    pub fn allows(&self, now: Instant) -> Result<(), Option<Instant>> {
        match &self.open {
            None => Ok(()),
            Some(Open { probing: true, .. }) => Err(None),
            Some(Open { until, .. }) if now < *until => Err(Some(*until)),
            Some(_) => Ok(()),
        }
    }

    /// A request goes out. True where it is a probe.
    pub fn start(&mut self) -> bool {
        self.open.as_mut().is_some_and(|open| !std::mem::replace(&mut open.probing, true))
    }

    /// A request has been answered.
    pub fn success(&mut self) -> Change {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        if self.successes >= RECOVERED {
            self.hold = self.first_hold;
        }
        if self.open.take().is_some() { Change::Closed } else { Change::None }
    }

    /// A request has failed; `probe` as [`start`](Self::start) said.
    pub fn failure(&mut self, probe: bool, now: Instant) -> Change {
        self.failures = self.failures.saturating_add(1);
        self.successes = 0;
        let opens = match &self.open {
            // What was sent before the breaker opened tells nothing new.
            Some(_) => probe,
            None => self.failures >= self.after,
        };
        if !opens {
            return Change::None;
        }
        let (hold, was_closed) = (self.hold, self.open.is_none());
        self.open = Some(Open { until: now + hold, probing: false });
        self.hold = (2 * hold).min(LONGEST);
        if was_closed { Change::Opened(hold) } else { Change::None }
    }

    /// A probe has ended without telling anything.
    pub fn undecided(&mut self, probe: bool) {
        if let Some(open) = self.open.as_mut().filter(|_| probe) {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_after_failures_in_a_row_alone() {
        let (mut breaker, now) = (Breaker::new(3, SECOND), Instant::now());
        for _ in 0..10 {
            assert_eq!(
                (breaker.failure(false, now), breaker.failure(false, now)),
                (Change::None, Change::None)
            );
            assert_eq!(breaker.success(), Change::None);
        }
        let changes: Vec<Change> = (0..5).map(|_| breaker.failure(false, now)).collect();
        assert_eq!(changes, [Change::None, Change::None, Change::Opened(SECOND), Change::None, Change::None]);
        assert_eq!(breaker.allows(now), Err(Some(now + SECOND)));
    }

    #[test]
    fn it_is_probed_by_one_request_after_ever_longer_times_to_a_cap() {
        let (mut breaker, mut now) = (Breaker::new(1, SECOND), Instant::now());
        assert_eq!(breaker.failure(false, now), Change::Opened(SECOND));
        for hold in [1, 2, 4, 8, 16, 32, 64, 120, 120] {
            let hold = Duration::from_secs(hold);
            assert_eq!(breaker.allows(now), Err(Some(now + hold)));
            now += hold;
            assert!(breaker.allows(now).is_ok() && breaker.start());
            assert_eq!(breaker.allows(now), Err(None));
            assert_eq!(breaker.failure(true, now), Change::None);
        }
        now += LONGEST;
        assert!(breaker.start());
        assert_eq!((breaker.success(), breaker.allows(now)), (Change::Closed, Ok(())));
        // Once more it is left alone for long, until it has been well for a while.
        assert_eq!(breaker.failure(false, now), Change::Opened(LONGEST));
        assert_eq!((0..10).map(|_| breaker.success()).next(), Some(Change::Closed));
        assert!((0..10).all(|_| breaker.success() == Change::None));
        assert_eq!(breaker.failure(false, now), Change::Opened(SECOND));
    }
}
