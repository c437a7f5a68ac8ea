//! Decides which request is sent next and to which server; outcome.rs handles the results. It does no input or output
//! except for the cache and reads no clock: the time is an argument.

mod outcome;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::backoff::Backoff;
use super::budget::Budget;
use super::cache::Cache;
use super::client::Fault;
use super::dialect::{Dialect, Kind};
use super::options::OpenAiOptions;
use super::protocol::Reply;
use super::question::{Open, Text};
use super::server::Server;
use crate::judge::queue::Answer;

use outcome::End;

/// Approximate number of bytes per token, for estimates.
const BYTES_A_TOKEN: f64 = 4.0;

/// The number of times that a request may fail while other requests succeed before it is given up, whatever the cause:
/// a request with more tokens than the server allows per minute gets 429 forever.
const MAX_OVERTAKEN: u32 = 100;

/// The number of requests that are sent before a failed one is sent again. It is sent early, because its question has
/// begun, but not first, so that a request that always fails does not block the others.
const BEHIND: usize = 8;

/// The number of requests by the source of their value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Values from log-probabilities.
    pub log_probabilities: u64,
    /// Values from the log-probability of one answer and, for the other answer, the upper bound that it is not among
    /// the most probable tokens.
    pub bounded: u64,
    /// Values from the text.
    pub texts: u64,
}

/// All open questions and the servers.
pub(super) struct Dispatch {
    options: Arc<OpenAiOptions>,
    pub servers: Vec<Server>,
    pub budget: Budget,
    cache: Option<Cache>,
    backoff: Backoff,
    open: HashMap<u64, Open>,
    /// Requests that are ready to be sent, and failed ones that wait before they are sent again.
    ready: VecDeque<Job>,
    later: Vec<(Instant, Job)>,
    /// The number of requests in flight.
    in_flight: usize,
    /// The number of unsent requests of questions that have begun.
    owed: usize,
    /// Counters for the numbers of questions and requests.
    questions: u64,
    requests: u64,
    pub sources: Sources,
    /// The number of usable answers so far.
    good: u64,
    answers: Vec<Answer>,
    pub notes: Vec<String>,
    failed: Option<String>,
    usage_warned: bool,
}

/// A request that is waiting to be sent.
struct Job {
    question: u64,
    part: usize,
    text: Text,
    /// The number of failures, and of those that count as tries because the question may be the cause.
    failures: u32,
    tries: u32,
    /// The server at which it failed last.
    avoid: Option<usize>,
    /// The value of `Dispatch::good` when it failed last, and the number of failures before which other requests had
    /// succeeded.
    good: u64,
    overtaken: u32,
}

impl Job {
    fn new(question: u64, part: usize, text: Text) -> Job {
        Job { question, part, text, failures: 0, tries: 0, avoid: None, good: 0, overtaken: 0 }
    }
}

/// A request in flight.
pub(super) struct Ticket {
    job: Job,
    pub server: usize,
    pub dialect: Dialect,
    pub kind: Kind,
    pub number: u64,
    probe: bool,
    tokens: f64,
    cost: f64,
}

impl Ticket {
    pub fn text(&self) -> &str {
        &self.job.text.text
    }
}

/// What to do next.
pub(super) enum Next {
    /// Send this request.
    Send(Box<Ticket>),
    /// Wait for an event, or until this time.
    Wait(Option<Instant>),
}

impl Dispatch {
    pub fn new(options: Arc<OpenAiOptions>, servers: Vec<Server>, cache: Option<Cache>) -> Dispatch {
        Dispatch {
            budget: Budget::new(&options),
            backoff: Backoff::new(options.backoff),
            options,
            servers,
            cache,
            open: HashMap::new(),
            ready: VecDeque::new(),
            later: Vec::new(),
            in_flight: 0,
            owed: 0,
            questions: 0,
            requests: 0,
            sources: Sources::default(),
            good: 0,
            answers: Vec::new(),
            notes: Vec::new(),
            failed: None,
            usage_warned: false,
        }
    }

    /// Accepts a question with the texts of its requests.
    pub fn submit(&mut self, mut question: Open, texts: Vec<Result<Text, String>>, now: Instant) {
        if self.open.is_empty() {
            // The time without questions, and answers to dropped questions, do not count as silence of the servers.
            self.servers.iter_mut().for_each(Server::rest);
        }
        let serial = self.questions;
        self.questions += 1;
        for (part, text) in texts.into_iter().enumerate() {
            let text = match text {
                Ok(text) => text,
                Err(why) => {
                    question.set(part, Err(why));
                    continue;
                }
            };
            match self.cache.as_ref().and_then(|cache| cache.get(&text.cache_key, question.kind)) {
                Some(value) => {
                    question.usage.cached += 1;
                    question.set(part, Ok(value));
                }
                None => self.ready.push_back(Job::new(serial, part, text)),
            }
        }
        match question.missing() {
            0 => self.answers.push(question.answer(now)),
            _ => drop(self.open.insert(serial, question)),
        }
    }

    /// The number of requests that are not done.
    pub fn unfinished(&self) -> usize {
        self.ready.len() + self.later.len() + self.in_flight
    }

    /// Whether all questions are answered.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// The next request to send.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.failed.is_some() {
            return Next::Wait(None);
        }
        let mut wake = Wake::default();
        for at in (0..self.later.len()).rev() {
            match self.later[at].0 {
                due if due <= now => {
                    let job = self.later.swap_remove(at).1;
                    self.ready.insert(self.ready.len().min(BEHIND), job);
                }
                due => wake.at(Some(due)),
            }
        }
        let idle =
            |server: &Server, wake: &mut Wake| server.allows(0.0, now).map_err(|when| wake.at(when)).is_ok();
        if self.servers.iter().filter(|server| idle(server, &mut wake)).count() == 0 {
            return Next::Wait(wake.0);
        }
        for at in 0..self.ready.len() {
            if self.is_within_budget(&self.ready[at])
                && let Some(server) = self.choose(&self.ready[at], now, &mut wake)
                && let Some(job) = self.ready.remove(at)
            {
                return Next::Send(Box::new(self.start(job, server, now)));
            }
        }
        Next::Wait(wake.0)
    }

    /// Whether the budget allows the request. The first request of a question needs budget for all requests of the
    /// question, so that no question is paid for in part.
    fn is_within_budget(&self, job: &Job) -> bool {
        let Some(question) = self.open.get(&job.question) else { return false };
        let (_, cost) = self.expected(job, &self.servers[0].dialect);
        match question.began {
            Some(_) => self.budget.allows(1, cost),
            None => {
                let all = question.missing();
                self.budget.allows((self.owed + all) as u64, cost * all as f64)
            }
        }
    }

    /// The expected number of tokens and cost of a request.
    fn expected(&self, job: &Job, dialect: &Dialect) -> (f64, f64) {
        let kind = self.open.get(&job.question).map_or(Kind::Compare, |question| question.kind);
        let system = self.options.system.as_ref().map_or(0, String::len);
        let read = (job.text.text.len() + system) as f64 / BYTES_A_TOKEN;
        let written = f64::from(dialect.max_tokens(&self.options, kind));
        (read + written, self.options.cost(read, written))
    }

    /// The server with most free capacity, except for the one at which the request failed last if another server is
    /// healthy.
    fn choose(&self, job: &Job, now: Instant, wake: &mut Wake) -> Option<usize> {
        let elsewhere = |failed: usize| {
            self.servers.iter().enumerate().any(|(at, server)| at != failed && server.is_healthy(now))
        };
        let avoid = job.avoid.filter(|failed| elsewhere(*failed));
        let mut best: Option<usize> = None;
        for (at, server) in self.servers.iter().enumerate().filter(|(at, _)| Some(*at) != avoid) {
            match server.allows(self.expected(job, &server.dialect).0, now) {
                Err(when) => wake.at(when),
                Ok(()) => {
                    let rank = |server: &Server| (server.free(), std::cmp::Reverse(server.started));
                    if best.is_none_or(|best| rank(server) > rank(&self.servers[best])) {
                        best = Some(at);
                    }
                }
            }
        }
        best
    }

    fn start(&mut self, job: Job, server: usize, now: Instant) -> Ticket {
        let dialect = self.servers[server].dialect.clone();
        let (tokens, cost) = self.expected(&job, &dialect);
        let mut kind = Kind::Compare;
        if let Some(question) = self.open.get_mut(&job.question) {
            kind = question.kind;
            question.usage.requests += 1;
            if question.began.replace(question.began.unwrap_or(now)).is_none() {
                self.owed += question.missing();
            }
        }
        self.owed = self.owed.saturating_sub(1);
        self.in_flight += 1;
        self.requests += 1;
        self.budget.start(cost);
        let probe = self.servers[server].start(tokens, now);
        Ticket { job, server, dialect, kind, number: self.requests, probe, tokens, cost }
    }

    /// Handles the end of a request.
    pub fn done(&mut self, ticket: Ticket, outcome: Result<Reply, Fault>, now: Instant) {
        let usage = self.pay(&ticket, outcome.as_ref().ok(), now);
        let end = match outcome {
            Ok(reply) => self.answered(&ticket, &reply, now),
            Err(fault) => self.faulted(&ticket, &fault, now),
        };
        if let End::Value(value, source) = end {
            self.keep(&ticket.job.text.cache_key, value, source);
        }
        let Ticket { mut job, server, .. } = ticket;
        // Its question may have been dropped.
        let Some(question) = self.open.get_mut(&job.question) else { return };
        self.in_flight -= 1;
        question.usage += usage;
        let value = match end {
            End::Value(value, _) => Ok(value),
            End::Invalid(why) => Err(why),
            End::Again { .. } if job.overtaken >= MAX_OVERTAKEN => {
                Err(format!("no answer in {} tries, while other requests were answered", job.failures + 1))
            }
            End::Again { at, tries } => {
                question.usage.failed += 1;
                (job.failures, job.tries, job.avoid) = (job.failures + 1, tries, Some(server));
                job.overtaken += u32::from(job.good < self.good);
                job.good = self.good;
                self.owed += 1;
                self.later.push((at, job));
                return;
            }
        };
        question.set(job.part, value);
        if question.missing() == 0
            && let Some(question) = self.open.remove(&job.question)
        {
            self.answers.push(question.answer(now));
        }
    }

    /// New answers and notes, and the error if no more will come.
    pub fn take(&mut self, now: Instant) -> (Vec<Answer>, Vec<String>, Option<String>) {
        self.check(now);
        let (answers, notes) = (std::mem::take(&mut self.answers), std::mem::take(&mut self.notes));
        // The error is returned only once all answers and notes were.
        let failed = if answers.is_empty() && notes.is_empty() { self.failed.take() } else { None };
        if failed.is_some() {
            self.forget();
        }
        (answers, notes, failed)
    }

    /// The time at which all servers will have been silent for too long; `None` if one has answered.
    pub fn given_up_at(&self) -> Option<Instant> {
        let mut latest = None;
        for server in self.servers.iter().filter(|server| server.out.is_none()) {
            latest = latest.max(Some(server.given_up_at(self.options.patience)?));
        }
        latest
    }

    fn check(&mut self, now: Instant) {
        if self.failed.is_some() || self.open.is_empty() {
            return;
        }
        if self.given_up_at().is_some_and(|at| at <= now) {
            let (time, said) = (self.options.patience.as_secs_f64(), self.last_words());
            let time = if time < 120.0 { format!("{time} s") } else { format!("{:.0} minutes", time / 60.0) };
            self.failed = Some(format!(
                "no server has answered for {time}: {said}; start a server or set judge-url to another one, then resume"
            ));
        } else if self.in_flight > 0 {
            // Wait for the requests in flight.
        } else if self.servers.iter().all(|server| server.out.is_some()) {
            let said = self.last_words();
            self.failed = Some(format!(
                "no server accepts requests: {said}; check judge-url, judge-model and the key (judge-key-env, judge-key-file)"
            ));
        } else if !self.waiting().any(|job| self.is_within_budget(job)) {
            self.failed = Some(self.budget.spent());
        }
    }

    /// All requests that are waiting to be sent.
    fn waiting(&self) -> impl Iterator<Item = &Job> {
        self.ready.iter().chain(self.later.iter().map(|(_, job)| job))
    }

    /// The last fault of each server.
    fn last_words(&self) -> String {
        let one = |server: &Server| format!("{} {}", server.address.place, server.last_words());
        self.servers.iter().map(one).collect::<Vec<String>>().join(", ")
    }

    /// Drops all open questions.
    fn forget(&mut self) {
        self.open.clear();
        self.ready.clear();
        self.later.clear();
        (self.in_flight, self.owed) = (0, 0);
    }
}

/// The earliest of several times.
#[derive(Default)]
struct Wake(Option<Instant>);

impl Wake {
    fn at(&mut self, when: Option<Instant>) {
        self.0 = match (self.0, when) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

#[cfg(test)]
mod tests;
