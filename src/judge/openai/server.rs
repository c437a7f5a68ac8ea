//! The state of one server: its load, its rate limits and its health.

use std::time::{Duration, Instant};

use super::address::Address;
use super::breaker::{Breaker, Change};
use super::client::Fault;
use super::dialect::Dialect;
use super::limits::Bucket;
use super::options::OpenAiOptions;

/// The number of answers in a row after which the note about a too high request rate may be repeated.
const ANSWERS_UNTIL_NOTE: u32 = 100;

/// The number of refusals without any answer after which a server is excluded.
const REFUSALS: u32 = 10;

/// A server of the fleet.
#[derive(Debug)]
pub(super) struct Server {
    pub address: Address,
    pub dialect: Dialect,
    concurrency: usize,
    pub in_flight: usize,
    /// The number of requests that were sent to it.
    pub started: u64,
    breaker: Breaker,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    paused_until: Option<Instant>,
    /// Why no more requests are sent to it.
    pub out: Option<String>,
    /// Since when it has not answered, and its last error.
    bad: Option<(Instant, String)>,
    has_failed: bool,
    /// Whether it has returned a usable answer.
    pub has_judged: bool,
    refusals: u32,
    /// Set once it was sent too many requests; counts the answers since then.
    hurried: Option<u32>,
    gives_log_probabilities: bool,
    model: Option<String>,
}

impl Server {
    pub fn new(address: Address, options: &OpenAiOptions, now: Instant) -> Server {
        Server {
            address,
            dialect: Dialect::new(options),
            concurrency: options.concurrency,
            in_flight: 0,
            started: 0,
            breaker: Breaker::new(options.break_after, options.break_for),
            requests: options.requests_per_minute.map(|limit| Bucket::new(limit, now)),
            tokens: options.tokens_per_minute.map(|limit| Bucket::new(limit, now)),
            paused_until: None,
            out: None,
            bad: None,
            has_failed: false,
            has_judged: false,
            refusals: 0,
            hurried: None,
            gives_log_probabilities: false,
            model: None,
        }
    }

    /// The number of further requests that may be in flight.
    pub fn free(&self) -> usize {
        self.concurrency - self.in_flight
    }

    /// Whether requests are sent to it normally, regardless of its load.
    pub fn is_healthy(&self, now: Instant) -> bool {
        self.out.is_none() && self.breaker.is_closed() && self.paused_until.is_none_or(|until| until <= now)
    }

    /// Whether a request of `tokens` tokens may be sent now; if not, the time at which to check again, or `None` if
    /// only a result can change it.
    pub fn allows(&self, tokens: f64, now: Instant) -> Result<(), Option<Instant>> {
        if self.out.is_some() || self.free() == 0 {
            return Err(None);
        }
        self.breaker.allows(now)?;
        let waits = [
            self.paused_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
            self.requests.as_ref().map_or(Duration::ZERO, |bucket| bucket.wait(1.0, now)),
            self.tokens.as_ref().map_or(Duration::ZERO, |bucket| bucket.wait(tokens, now)),
        ];
        match waits.into_iter().max().filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(now.checked_add(wait)),
            None => Ok(()),
        }
    }

    /// Records that a request of `tokens` tokens is sent. Returns true if it is a probe.
    pub fn start(&mut self, tokens: f64, now: Instant) -> bool {
        self.in_flight += 1;
        self.started += 1;
        if let Some(bucket) = &mut self.requests {
            bucket.take(1.0, now);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.take(tokens, now);
        }
        self.breaker.start()
    }

    /// Records that a request has ended; it took `more_tokens` more tokens than estimated.
    pub fn finish(&mut self, more_tokens: f64, now: Instant) {
        self.in_flight -= 1;
        if let Some(bucket) = &mut self.tokens {
            bucket.take(more_tokens, now);
        }
    }

    /// Records an answer. Returns a note if the state has changed.
    pub fn answered(&mut self) -> Option<String> {
        self.bad = None;
        self.hurried =
            self.hurried.map(|answers| answers + 1).filter(|answers| *answers < ANSWERS_UNTIL_NOTE);
        match self.breaker.success() {
            Change::Closed => Some(format!("{} answers again", self.address.place)),
            _ => None,
        }
    }

    /// Records a failure that may be the server's. Returns a note if the state has changed.
    pub fn failed(&mut self, fault: &Fault, probe: bool, now: Instant) -> Option<String> {
        self.bad.get_or_insert_with(|| (now, String::new())).1.clone_from(&fault.why);
        if let Some(wait) = fault.wait {
            self.pause(wait, now);
        }
        let (place, why) = (&self.address.place, &fault.why);
        let first = !std::mem::replace(&mut self.has_failed, true);
        match self.breaker.failure(probe, now) {
            Change::Opened(hold) => {
                let hold = hold.as_secs_f64();
                Some(format!(
                    "{place} has failed several times in a row ({why}): no requests are sent to it for {hold} s, longer after further failures"
                ))
            }
            _ => first.then(|| format!("{place} {why}: the request is sent again")),
        }
    }

    /// Records that it was sent too many requests. Returns a note if the state has changed.
    pub fn hurried(&mut self, fault: &Fault, wait: Duration, probe: bool, now: Instant) -> Option<String> {
        self.bad.get_or_insert_with(|| (now, String::new())).1.clone_from(&fault.why);
        self.breaker.undecided(probe);
        self.pause(wait, now);
        let first = self.hurried.replace(0).is_none();
        first.then(|| format!("{} {}: requests to it are slowed down", self.address.place, fault.why))
    }

    fn pause(&mut self, wait: Duration, now: Instant) {
        self.paused_until = self.paused_until.max(now.checked_add(wait));
    }

    /// Records a refusal by a server that has never answered. Returns whether the server must be excluded.
    pub fn refuses_all(&mut self) -> bool {
        self.refusals += 1;
        self.refusals >= REFUSALS
    }

    /// Excludes the server. Returns a note if the state has changed.
    pub fn exclude(&mut self, why: &str) -> Option<String> {
        let first = self.out.is_none();
        self.out.get_or_insert_with(|| why.to_owned());
        first.then(|| format!("{} {why}: no more requests are sent to it", self.address.place))
    }

    /// When it will have been silent for `patience`; `None` if its last request was answered or none was sent.
    pub fn given_up_at(&self, patience: Duration) -> Option<Instant> {
        self.bad.as_ref().and_then(|(since, _)| since.checked_add(patience))
    }

    /// Its last error; empty if it has answered since.
    pub fn last_words(&self) -> &str {
        let bad = self.bad.as_ref().map_or("", |(_, why)| why.as_str());
        self.out.as_deref().unwrap_or(bad)
    }

    /// Resets the time of silence: there were no questions before.
    pub fn rest(&mut self) {
        self.bad = None;
    }

    /// Records whether an answer has log-probabilities. Returns false if it has none although an earlier one had.
    pub fn gives_log_probabilities(&mut self, some: bool) -> bool {
        let before = self.gives_log_probabilities;
        self.gives_log_probabilities |= some;
        some || !before
    }

    /// Checks the model name in an answer to a request for the model `requested`. Returns an error if the name is wrong and
    /// was right before; a note if the first name differs from `requested` (except for a version suffix, as OpenAI adds it)
    /// or the name has changed.
    pub fn names_model(&mut self, requested: &str, named: &str) -> Result<Option<String>, String> {
        let before = self.model.as_deref();
        match before {
            Some(before) if before == requested && named != requested => {
                Err(format!("answers as model {named:?}, not {requested:?}"))
            }
            Some(before) if before != named => {
                let note = format!("{} was model {before:?}, and is now {named:?}", self.address.place);
                self.model = Some(named.to_owned());
                Ok(Some(note))
            }
            Some(_) => Ok(None),
            None => {
                self.model = Some(named.to_owned());
                let alike = named.contains(requested) || requested.contains(named);
                Ok((!alike).then(|| {
                    format!("{} answers as model {named:?} when asked for {requested:?}", self.address.place)
                }))
            }
        }
    }
}
