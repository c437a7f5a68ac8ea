//! A circuit breaker: a server that fails several times in a row gets no requests for a while, then a single probe
//! request.

use std::time::{Duration, Instant};

/// The maximum hold time.
const LONGEST: Duration = Duration::from_secs(120);
/// The number of successes in a row after which the hold time is reset.
const RECOVERED: u32 = 10;

/// Whether requests may be sent to a server.
#[derive(Debug)]
pub(super) struct Breaker {
    after: u32,
    first_hold: Duration,
    /// The hold time of the next opening.
    hold: Duration,
    failures: u32,
    successes: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    /// Whether a probe request is in flight.
    probing: bool,
}

/// The effect of a result on the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// The breaker has opened for this hold time; it was closed before.
    Opened(Duration),
    /// The breaker has closed.
    Closed,
}

impl Breaker {
    /// A breaker that opens after `after` failures in a row, at first for `hold`.
    pub fn new(after: u32, hold: Duration) -> Breaker {
        let hold = hold.min(LONGEST);
        Breaker { after, first_hold: hold, hold, failures: 0, successes: 0, open: None }
    }

    /// Whether the breaker is closed: requests are sent normally.
    pub fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// Whether a request may be sent now; if not, the time at which to check again, or `None` if only a result can
    /// change it.
    pub fn allows(&self, now: Instant) -> Result<(), Option<Instant>> {
        match &self.open {
            None => Ok(()),
            Some(Open { probing: true, .. }) => Err(None),
            Some(Open { until, .. }) if now < *until => Err(Some(*until)),
            Some(_) => Ok(()),
        }
    }

    /// Records that a request is sent. Returns true if it is a probe.
    pub fn start(&mut self) -> bool {
        self.open.as_mut().is_some_and(|open| !std::mem::replace(&mut open.probing, true))
    }

    /// Records a success.
    pub fn success(&mut self) -> Change {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        if self.successes >= RECOVERED {
            self.hold = self.first_hold;
        }
        if self.open.take().is_some() { Change::Closed } else { Change::None }
    }

    /// Records a failure; `probe` as returned by [`start`](Self::start).
    pub fn failure(&mut self, probe: bool, now: Instant) -> Change {
        self.failures = self.failures.saturating_add(1);
        self.successes = 0;
        let opens = match &self.open {
            // The failure of a request that was sent before the breaker opened changes nothing.
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

    /// Records a probe that ended neither in success nor in failure.
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
    fn it_opens_only_after_failures_in_a_row() {
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
    fn it_sends_single_probes_at_increasing_intervals_up_to_a_limit() {
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
        // The hold time stays long until there were enough successes in a row.
        assert_eq!(breaker.failure(false, now), Change::Opened(LONGEST));
        assert_eq!((0..10).map(|_| breaker.success()).next(), Some(Change::Closed));
        assert!((0..10).all(|_| breaker.success() == Change::None));
        assert_eq!(breaker.failure(false, now), Change::Opened(SECOND));
    }
}
