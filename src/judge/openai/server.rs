//! What is known of one server: how busy it is, how fast it may be asked, whether it is well.

use std::time::{Duration, Instant};

use super::address::Address;
use super::breaker::{Breaker, Change};
use super::client::Fault;
use super::dialect::Dialect;
use super::limits::Bucket;
use super::options::OpenAiOptions;

/// Answers in a row after which a server that was asked too often is no longer called slow.
const UNHURRIED: u32 = 100;

/// Refusals without a single answer after which a server is taken to refuse all that it is asked.
const REFUSALS: u32 = 10;

/// A server of the fleet.
#[derive(Debug)]
pub(super) struct Server {
    pub address: Address,
    pub dialect: Dialect,
    concurrency: usize,
    pub in_flight: usize,
    /// Requests that were sent to it.
    pub started: u64,
    breaker: Breaker,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    paused_until: Option<Instant>,
    /// Why it is asked no more.
    pub out: Option<String>,
    /// Since when it has answered nothing, and what it said last.
    bad: Option<(Instant, String)>,
    has_failed: bool,
    /// It has answered as a judge does.
    pub has_judged: bool,
    refusals: u32,
    /// Asked too often; and answers since then.
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

    /// How many more requests it may be sent at once.
    pub fn free(&self) -> usize {
        self.concurrency - self.in_flight
    }

    /// Whether it is asked as usual, be it busy or not.
    pub fn is_well(&self, now: Instant) -> bool {
        self.out.is_none() && self.breaker.is_closed() && self.paused_until.is_none_or(|until| until <= now)
    }

    /// Whether a request of so many tokens may be sent now; if not, when to ask again, where time alone changes that.
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

    /// A request of so many tokens is sent. True where it is a probe.
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

    /// The request is back; it took so many tokens more than was thought.
    pub fn finish(&mut self, more_tokens: f64, now: Instant) {
        self.in_flight -= 1;
        if let Some(bucket) = &mut self.tokens {
            bucket.take(more_tokens, now);
        }
    }

    /// It has answered. What is new is told.
    pub fn answered(&mut self) -> Option<String> {
        self.bad = None;
        self.hurried = self.hurried.map(|answers| answers + 1).filter(|answers| *answers < UNHURRIED);
        match self.breaker.success() {
            Change::Closed => Some(format!("{} answers again", self.address.place)),
            _ => None,
        }
    }

    /// It has failed, and may be at fault. What is new is told.
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
                    "{place} has failed several times in a row ({why}): it is left alone for {hold} s, then longer"
                ))
            }
            _ => first.then(|| format!("{place} {why}: the question is asked again")),
        }
    }

    /// It is asked too often. What is new is told.
    pub fn hurried(&mut self, fault: &Fault, wait: Duration, probe: bool, now: Instant) -> Option<String> {
        self.bad.get_or_insert_with(|| (now, String::new())).1.clone_from(&fault.why);
        self.breaker.undecided(probe);
        self.pause(wait, now);
        let first = self.hurried.replace(0).is_none();
        first.then(|| format!("{} {}: it is asked more slowly", self.address.place, fault.why))
    }

    fn pause(&mut self, wait: Duration, now: Instant) {
        self.paused_until = self.paused_until.max(now.checked_add(wait));
    }

    /// It has refused a request, and never answered one. Whether this is enough.
    pub fn refuses_all(&mut self) -> bool {
        self.refusals += 1;
        self.refusals >= REFUSALS
    }

    /// It is asked no more. What is new is told.
    pub fn expel(&mut self, why: &str) -> Option<String> {
        let first = self.out.is_none();
        self.out.get_or_insert_with(|| why.to_owned());
        first.then(|| format!("{} {why}: it is asked no more", self.address.place))
    }

    /// When it will have answered nothing for `patience`; `None` where it has answered, or was not asked.
    pub fn given_up_at(&self, patience: Duration) -> Option<Instant> {
        self.bad.as_ref().and_then(|(since, _)| since.checked_add(patience))
    }

    /// What it said last, if that was no answer.
    pub fn last_words(&self) -> &str {
        let bad = self.bad.as_ref().map_or("", |(_, why)| why.as_str());
        self.out.as_deref().unwrap_or(bad)
    }

    /// Questions come after a time without any: the silence in it means nothing.
    pub fn rest(&mut self) {
        self.bad = None;
    }

    /// An answer has log-probabilities. False where it has none, though the server gave some before.
    pub fn gives_log_probabilities(&mut self, some: bool) -> bool {
        let before = self.gives_log_probabilities;
        self.gives_log_probabilities |= some;
        some || !before
    }

    /// The name of the model in an answer to a request for `asked`. An error where it is another one of a server that gave
    /// the right name before; a note where it is the first and another one (but for a version, as OpenAI adds it), or has
    /// changed.
    pub fn names_model(&mut self, asked: &str, named: &str) -> Result<Option<String>, String> {
        let before = self.model.as_deref();
        match before {
            Some(before) if before == asked && named != asked => {
                Err(format!("answers as model {named:?}, not {asked:?}"))
            }
            Some(before) if before != named => {
                let note = format!("{} was model {before:?}, and is now {named:?}", self.address.place);
                self.model = Some(named.to_owned());
                Ok(Some(note))
            }
            Some(_) => Ok(None),
            None => {
                self.model = Some(named.to_owned());
                let alike = named.contains(asked) || asked.contains(named);
                Ok((!alike).then(|| {
                    format!("{} answers as model {named:?} when asked for {asked:?}", self.address.place)
                }))
            }
        }
    }
}
