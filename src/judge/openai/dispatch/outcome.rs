//! What the end of a request means: what it has brought and cost, whose fault a failure is, what is learnt of the server.

use std::time::Instant;

use super::super::client::{Blame, Fault};
use super::super::dialect::{Kind, Lesson};
use super::super::protocol::Reply;
use super::super::verdict::{self, Reading, Source};
use super::{Dispatch, Ticket};
use crate::judge::queue::Usage;

/// What the end of a request means for its question.
pub(super) enum End {
    Value(f32, Source),
    Invalid(String),
    /// Ask again.
    Again {
        at: Instant,
        tries: u32,
    },
}

impl Dispatch {
    /// Counts and writes down what a request has brought, also of a question that was given up: it was paid for.
    pub(super) fn keep(&mut self, asked: &str, value: f32, source: Source) {
        let count = match source {
            Source::LogProbabilities => &mut self.sources.log_probabilities,
            Source::Bounded => &mut self.sources.bounded,
            Source::Text => &mut self.sources.texts,
        };
        *count += 1;
        if let Some(Err(error)) = self.cache.as_mut().map(|cache| cache.put(asked, value)) {
            self.notes.push(format!("verdicts are kept in the cache no longer: {error}"));
            self.cache = None;
        }
    }

    /// Counts what a request took. A failed one is taken to cost nothing.
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
                if self.options.max_cost.is_some() && !std::mem::replace(&mut self.told_of_usage, true) {
                    let place = &self.servers[ticket.server].address.place;
                    self.notes.push(format!(
                        "{place} does not tell the tokens that it took: the cost is an estimate"
                    ));
                }
            }
        }
        self.budget.finish(ticket.cost, usage.cost);
        self.servers[ticket.server].finish(tokens - ticket.tokens, now);
        usage
    }

    /// What an answer says, if it can be one.
    pub(super) fn answered(&mut self, ticket: &Ticket, reply: &Reply, now: Instant) -> End {
        let model = self.options.model.clone();
        let server = &mut self.servers[ticket.server];
        let named = reply.model.as_deref().filter(|name| !name.is_empty());
        match named.map_or(Ok(None), |named| server.names_model(&model, named)) {
            Ok(note) => self.notes.extend(note),
            Err(why) => return self.faulted(ticket, &Fault::new(Blame::Either, why), now),
        }
        let server = &mut self.servers[ticket.server];
        // An empty text has no tokens whose probabilities could be told.
        let expected = ticket.dialect.top.is_some() && !reply.text.is_empty();
        let silent = expected && !reply.has_log_probabilities();
        if expected && !server.gives_log_probabilities(!silent) {
            let why = "leaves out the log-probabilities that it gave before";
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
            // It was asked for a single token, as there would be log-probabilities.
            Reading::Unusable(_)
                if silent && server.dialect.max_tokens(&self.options, ticket.kind) > longest =>
            {
                again
            }
            Reading::Unusable(why) => End::Invalid(why),
        }
    }

    /// What a failure means: for its server, for those that ask it, for the question.
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
                    // Another answer has taught it since.
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
                    // It may refuse whatever it is asked. No question is to blame before it has answered one.
                    if !server.refuses_all() {
                        return End::Again { at, tries };
                    }
                }
                let tried = server.address.tried(ticket.dialect.base, self.options.api);
                let at = if status == 404 { format!(" at {tried}") } else { String::new() };
                self.notes.extend(server.expel(&format!("{}{at}", fault.why)));
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
                        "there was no answer in {tries} tries: at last the server {}",
                        fault.why
                    )),
                    tries => End::Again { at, tries },
                }
            }
        }
    }
}
