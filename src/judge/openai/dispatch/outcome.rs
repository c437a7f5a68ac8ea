//! Handles the result of a request: its value and cost, the cause of a failure, and what it shows about the server.

use std::time::Instant;

use super::super::client::{Blame, Fault};
use super::super::dialect::{Kind, Lesson};
use super::super::protocol::Reply;
use super::super::verdict::{self, Reading, Source};
use super::{Dispatch, Ticket};
use crate::judge::queue::Usage;

/// The consequence of a result for the question.
pub(super) enum End {
    Value(f32, Source),
    Invalid(String),
    /// Send the request again.
    Again {
        at: Instant,
        tries: u32,
    },
}

impl Dispatch {
    /// Counts and caches a value, even if its question was dropped: it was paid for.
    pub(super) fn keep(&mut self, key: &str, value: f32, source: Source) {
        let count = match source {
            Source::LogProbabilities => &mut self.sources.log_probabilities,
            Source::Bounded => &mut self.sources.bounded,
            Source::Text => &mut self.sources.texts,
        };
        *count += 1;
        if let Some(Err(error)) = self.cache.as_mut().map(|cache| cache.put(key, value)) {
            self.notes.push(format!("the cache is disabled and verdicts are no longer stored: {error}"));
            self.cache = None;
        }
    }

    /// Records the usage of a request. A failed one counts as free.
    pub(super) fn pay(&mut self, ticket: &Ticket, reply: Option<&Reply>, now: Instant) -> Usage {
        let mut usage = Usage::default();
        let mut tokens = ticket.tokens;
        match reply.map(|reply| reply.tokens) {
            None => {}
            Some(Some((read, written))) => {
                (usage.prompt_tokens, usage.completion_tokens) = (read, written);
                usage.cost = self.options.cost(read as f64, written as f64);
                tokens = (read + written) as f64;
            }
            Some(None) => {
                usage.cost = ticket.cost;
                if self.options.max_cost.is_some() && !std::mem::replace(&mut self.usage_warned, true) {
                    let place = &self.servers[ticket.server].address.place;
                    self.notes
                        .push(format!("{place} does not report its token usage: the cost is an estimate"));
                }
            }
        }
        self.budget.finish(ticket.cost, usage.cost);
        self.servers[ticket.server].finish(tokens - ticket.tokens, now);
        usage
    }

    /// Evaluates an answer.
    pub(super) fn answered(&mut self, ticket: &Ticket, reply: &Reply, now: Instant) -> End {
        let model = self.options.model.clone();
        let server = &mut self.servers[ticket.server];
        let named = reply.model.as_deref().filter(|name| !name.is_empty());
        match named.map_or(Ok(None), |named| server.names_model(&model, named)) {
            Ok(note) => self.notes.extend(note),
            Err(why) => return self.faulted(ticket, &Fault::new(Blame::Either, why), now),
        }
        let server = &mut self.servers[ticket.server];
        // An empty text has no tokens, so it has no log-probabilities.
        let expected = ticket.dialect.top.is_some() && !reply.text.is_empty();
        let silent = expected && !reply.has_log_probabilities();
        if expected && !server.gives_log_probabilities(!silent) {
            let why = "returns no log-probabilities, though it did before";
            return self.faulted(ticket, &Fault::new(Blame::Either, why), now);
        }
        self.notes.extend(server.answered());
        server.has_judged = true;
        self.good += 1;
        if silent && server.dialect.top.is_some() {
            let note = server.dialect.without_log_probabilities();
            self.notes.push(format!("{} {note}", server.address.place));
        }
        let form = self.options.form();
        let reading = match ticket.kind {
            Kind::Compare => verdict::compare(reply, form),
            Kind::Rate => verdict::rate(reply, form),
        };
        let again = End::Again { at: now, tries: ticket.job.tries };
        let longest = ticket.dialect.max_tokens(&self.options, ticket.kind);
        match reading {
            Reading::Value(value, source) => End::Value(value, source),
            Reading::Blank if server.dialect.after_blank() || server.dialect != ticket.dialect => again,
            Reading::Blank => End::Invalid("the judge's answer is blank".into()),
            // Only a single token was requested, because log-probabilities were expected.
            Reading::Unusable(_)
                if silent && server.dialect.max_tokens(&self.options, ticket.kind) > longest =>
            {
                again
            }
            Reading::Unusable(why) => End::Invalid(why),
        }
    }

    /// Evaluates a failure: its consequences for the server, for the request rate, and for the question.
    pub(super) fn faulted(&mut self, ticket: &Ticket, fault: &Fault, now: Instant) -> End {
        let Ticket { job, probe, .. } = ticket;
        let wait = self.backoff.wait(job.failures + 1);
        let server = &mut self.servers[ticket.server];
        let (at, tries) = (now + wait, job.tries);
        match fault.blame {
            Blame::Question | Blame::Refused => {
                let (status, bases) = (fault.status.unwrap_or(0), server.address.bases.len());
                let lesson = match server.dialect == ticket.dialect {
                    true => server.dialect.learn_from_refusal(status, &fault.why, bases, self.options.api),
                    // Another answer has changed the dialect in the meantime.
                    false => Lesson::Changed(None),
                };
                if let Lesson::Changed(note) = lesson {
                    self.notes.extend(note.map(|note| format!("{} {note}", server.address.place)));
                    self.notes.extend(server.answered());
                    return End::Again { at: now, tries };
                }
                if fault.blame == Blame::Question {
                    self.notes.extend(server.answered());
                    if server.has_judged {
                        return End::Invalid(format!("the judge's server {}", fault.why));
                    }
                    // The server may refuse all requests; until it has answered one, the question is not considered the
                    // cause.
                    if !server.refuses_all() {
                        return End::Again { at, tries };
                    }
                }
                let tried = server.address.tried(ticket.dialect.base, self.options.api);
                let at = if status == 404 { format!(" at {tried}") } else { String::new() };
                self.notes.extend(server.exclude(&format!("{}{at}", fault.why)));
                End::Again { at: now, tries }
            }
            Blame::Pace => {
                self.notes.extend(server.hurried(fault, fault.wait.unwrap_or(wait), *probe, now));
                End::Again { at, tries }
            }
            Blame::Server => {
                self.notes.extend(server.failed(fault, *probe, now));
                End::Again { at, tries }
            }
            Blame::Either => {
                self.notes.extend(server.failed(fault, *probe, now));
                match tries + 1 {
                    tries if tries > self.options.retries => End::Invalid(format!(
                        "no answer in {tries} tries; last error: the server {}",
                        fault.why
                    )),
                    tries => End::Again { at, tries },
                }
            }
        }
    }
}
