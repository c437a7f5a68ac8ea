//! Judges behind OpenAI's HTTP API: vLLM, SGLang, Ray Serve, Ollama, llama.cpp, OpenAI itself.
//!
//! ```text
//! submit: for each question                                                           question.rs
//!     texts   = template(response 1, response 2), template(response 2, response 1)    ../template.rs, rating.rs
//!     texts that are in the cache are answered                                        cache.rs
//!     the others become requests
//! thread: forever                                                                     workers.rs
//!     request = the next one that the budget allows, to the healthy server with most  dispatch.rs, budget.rs
//!               free capacity that is within its rate limits                          server.rs, breaker.rs, limits.rs
//!     reply   = POST /v1/chat/completions, in the dialect of this server              client.rs, protocol.rs, dialect.rs
//!     p       = softmax over log p("1"), log p("2"); else from the text               verdict.rs
//!     failed?   fault of the server: retried on another one after a wait              dispatch/outcome.rs, backoff.rs
//!               fault of the question, or too many tries: an invalid verdict
//! poll: questions whose requests are all done: p = ½ [p₁₂ + 1 − p₂₁]
//!     an error if no server has answered for too long, none accepts requests, or the budget is spent
//! ```
//!
//! If a server repeats the request's id (vLLM does, in the header `x-request-id` or in the id of the answer), an answer
//! to a different request is detected by it. Otherwise it cannot be detected.
//!
//! A request is retried after a connection failure, a timeout, a cut connection, an unreadable answer, and the statuses 408,
//! 409, 425, 429 and 5xx. It is not retried after 400 and 422, which make the question invalid once the server has answered
//! another one. A server is excluded after 401, 403 or 404, or if it only refuses requests. If a server refuses a parameter
//! of the request (log-probabilities, their number, the name of the length limit, the temperature), the request is sent
//! without it.

mod address;
mod backoff;
mod breaker;
mod budget;
mod cache;
mod client;
mod dialect;
mod dispatch;
mod key;
mod limits;
mod options;
mod protocol;
mod question;
mod rating;
mod retry_after;
mod server;
mod verdict;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use dispatch::Sources;
pub use key::Key;
pub use options::{Api, OpenAiOptions};
pub use rating::RatingTemplate;

use address::Address;
use cache::Cache;
use client::Client;
use dispatch::Dispatch;
use question::Open;
use server::Server;
use workers::Shared;

use super::llm::Orders;
use super::queue::{JudgeQueue, Polled, Question, Usage};
use super::template::JudgeTemplate;
use super::{Pair, Position, Rated};
use crate::error::{Error, Result};
use crate::task::Task;

/// A template that asks for reasons must contain this text.
const VERDICT: &str = "Verdict:";

/// A judge model on one or more servers.
///
/// Dropping it does not wait for requests in flight: their threads end when the requests do.
pub struct OpenAi {
    options: Arc<OpenAiOptions>,
    template: JudgeTemplate,
    shared: Arc<Shared>,
}

impl OpenAi {
    /// A judge that uses `template`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Config`] for invalid options or an unsuitable template; [`Error::Io`] for a cache that cannot be
    /// opened.
    pub fn new(options: OpenAiOptions, template: JudgeTemplate) -> Result<OpenAi> {
        options.check()?;
        check_reasons(&options, &template)?;
        let now = Instant::now();
        let addresses = options.urls.iter().map(|url| Address::new(url)).collect::<Result<Vec<Address>>>()?;
        let mut notes = Vec::new();
        for address in addresses.iter().filter(|address| options.key.is_some() && address.is_open()) {
            let place = &address.place;
            notes.push(format!(
                "the key is sent to {place} unencrypted and can be read in transit: use https"
            ));
        }
        let cache = options.cache.as_deref().map(Cache::open).transpose()?;
        if let Some(skipped) = cache.as_ref().map(|cache| cache.skipped).filter(|skipped| *skipped > 0) {
            notes.push(format!("skipped {skipped} unreadable lines of the cache"));
        }
        let options = Arc::new(options);
        let servers = addresses.into_iter().map(|address| Server::new(address, &options, now)).collect();
        let mut dispatch = Dispatch::new(options.clone(), servers, cache);
        dispatch.notes = notes;
        let client = Client::new(&options, RandomState::new().hash_one(0) as u32);
        let shared = Shared::new(dispatch, client, options.clone());
        Ok(OpenAi { options, template, shared })
    }

    /// The number of verdicts and ratings so far by source.
    pub fn sources(&self) -> Sources {
        self.shared.lock().dispatch.sources
    }
}

/// With reasons, the template must ask for the line from which the verdict is read.
fn check_reasons(options: &OpenAiOptions, template: &JudgeTemplate) -> Result<()> {
    if !options.reasons {
        return Ok(());
    }
    // A template that does not render these texts cannot be checked.
    let asks = |text: Result<String>| text.map_or(true, |text| text.contains(VERDICT));
    let why = "does not ask for a last line such as \"Verdict: 1\", which `judge-reasons` needs";
    let pair = Pair { prompt: "1", response_1: "1", response_2: "2" };
    if !options.pointwise && !asks(template.render(&pair)) {
        return Err(Error::config("judge-template", why));
    }
    let rated = options.rating.as_ref().map(|rating| rating.render(&Rated { prompt: "1", response: "1" }));
    match rated.is_none_or(asks) {
        true => Ok(()),
        false => Err(Error::config("judge-rating-template", why)),
    }
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi").field("model", &self.options.model).finish_non_exhaustive()
    }
}

impl JudgeQueue for OpenAi {
    fn name(&self) -> String {
        format!("openai ({})", self.options.model)
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let options = &*self.options;
        let [template, instruction] = self.template.identity();
        let rating = options.rating.as_ref().map_or_else(String::new, RatingTemplate::identity);
        let orders = if options.orders == Orders::Both { "both" } else { "one" };
        let max_tokens = if options.reasons { options.max_tokens.to_string() } else { String::new() };
        let all = [
            ("judge", "openai".to_owned()),
            ("judge-model", options.model.clone()),
            ("judge-template", template),
            ("judge-instruction", instruction),
            ("judge-rating-template", rating),
            ("judge-system", options.system.clone().unwrap_or_default()),
            ("judge-api", options.api.name().to_owned()),
            ("judge-orders", orders.to_owned()),
            ("judge-log-probabilities", options.log_probabilities.to_string()),
            ("judge-most-probable", options.most_probable.to_string()),
            ("judge-reasons", options.reasons.to_string()),
            ("judge-max-tokens", max_tokens),
            ("judge-ties", options.ties.to_string()),
            ("judge-pointwise", options.pointwise.to_string()),
            ("judge-temperature", options.temperature.to_string()),
        ];
        Ok(all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn position(&self) -> Position {
        let given = self.options.orders == Orders::One && !self.options.pointwise;
        if given { Position::Given } else { Position::Settled }
    }

    fn rates(&self) -> bool {
        self.options.rating.is_some()
    }

    fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        for question in questions {
            // Rendering takes time, so it happens without the lock.
            let (open, texts) = Open::new(question, &self.template, &self.options);
            self.shared.lock().dispatch.submit(open, texts, Instant::now());
        }
        self.shared.work().map_err(|error| {
            let why =
                format!("cannot start a thread for its requests ({error}): end other programs and resume");
            Error::Judge { name: self.name(), why }
        })
    }

    fn poll<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<Polled>> {
        Box::pin(async move {
            let deadline = Instant::now().checked_add(patience);
            let mut state = self.shared.lock();
            loop {
                let now = Instant::now();
                let (answers, notes, failed) = state.dispatch.take(now);
                if let Some(why) = failed {
                    return Err(Error::Judge { name: self.name(), why });
                }
                let over = deadline.is_some_and(|deadline| deadline <= now);
                if !answers.is_empty() || !notes.is_empty() || over || state.dispatch.is_idle() {
                    return Ok(Polled { answers, notes });
                }
                let until = [deadline, state.dispatch.given_up_at()].into_iter().flatten().min();
                state = self.shared.wait(state, until);
            }
        })
    }

    fn used_before(&mut self, usage: Usage) {
        self.shared.lock().dispatch.budget.used_before(usage);
    }
}

impl Drop for OpenAi {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wait;

    #[test]
    fn threads_end_with_the_queue_and_dropping_it_does_not_wait_for_a_silent_server() {
        // The operating system accepts the connections; nothing answers them.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", silent.local_addr().unwrap());
        let timeout = Duration::from_secs(3);
        let options = OpenAiOptions {
            model: "m".into(),
            urls: vec![url],
            timeout,
            concurrency: 4,
            ..OpenAiOptions::default()
        };
        let template = JudgeTemplate::from_text("{{ prompt }} {{ response_1 }} {{ response_2 }}").unwrap();
        let mut queue = OpenAi::new(options, template).unwrap();
        let pairs = ["a", "b", "c"].map(|prompt| Pair { prompt, response_1: "x", response_2: "y" });
        queue.submit(pairs.iter().map(|pair| Question::compare("t", pair)).collect()).unwrap();
        assert!(queue.poll(Duration::from_millis(100)).wait().unwrap().answers.is_empty());
        let shared = Arc::downgrade(&queue.shared);
        // One reference by this test, one by each thread.
        assert_eq!(shared.strong_count(), 1 + 4);
        drop(queue);
        assert!(shared.strong_count() > 0, "dropping it waits for its threads");
        let started = Instant::now();
        while shared.strong_count() > 0 {
            assert!(started.elapsed() < 20 * timeout, "{} threads are left", shared.strong_count());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
