//! Sends one request and returns the answer, or a fault and its cause.

use std::time::Duration;

use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use ureq::http::{Request, Response, Uri};
use ureq::{Agent, Body, Timeout};

use super::key::Key;
use super::options::{Api, OpenAiOptions};
use super::protocol::{Reply, error_message, parsed, start};
use super::retry_after;
use crate::error::size;
use crate::redirects::{place, redirected, same_origin};

/// Limits on the size of an answer and of an error in bytes.
const LONGEST: u64 = 4 << 20;
const LONGEST_ERROR: u64 = 64 << 10;
const REDIRECTS: usize = 3;
/// Servers close idle connections, uvicorn (vLLM) after 5 seconds.
const IDLE: Duration = Duration::from_secs(4);
/// The middle part of request ids. They are version 4 UUIDs: llama-cpp-python refuses all others, with an empty 400.
const OURS: &str = "-6f61-4966-8000-";

/// An HTTP client for judge servers. Only the client has access to the key.
pub(super) struct Client {
    agent: Agent,
    /// An agent without a proxy.
    local: Agent,
    key: Option<Key>,
    api: Api,
    /// Distinguishes the request ids of this process from those of others.
    process: u32,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub blame: Blame,
    /// A description that continues a sentence starting with the server's name.
    pub why: String,
    /// How long the server asks to wait before the next request.
    pub wait: Option<Duration>,
    /// The HTTP status, if the answer was an error.
    pub status: Option<u16>,
}

/// The cause of a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The server cannot be reached or is not working; nothing is known about the question.
    Server,
    /// Too many requests were sent to the server.
    Pace,
    /// The server or the question; a retry may decide.
    Either,
    /// The server rejects this request.
    Question,
    /// The server rejects all our requests.
    Refused,
}

impl Fault {
    pub fn new(blame: Blame, why: impl Into<String>) -> Fault {
        Fault { blame, why: why.into(), wait: None, status: None }
    }
}

/// The destination of a request.
pub(super) struct Target<'a> {
    /// See [`Address::bases`](super::address::Address).
    pub base: &'a str,
    /// Whether the server runs on this machine.
    pub local: bool,
}

impl Client {
    pub fn new(options: &OpenAiOptions, process: u32) -> Client {
        // If the connection timeout is the shorter one, an error shows whether a connection was made.
        let connect = options.connect_timeout.min(options.timeout / 2);
        let config = || {
            Agent::config_builder()
                .user_agent(concat!("oaif/", env!("CARGO_PKG_VERSION")))
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_connect(Some(connect))
                .timeout_global(Some(options.timeout))
                .max_idle_connections(options.concurrency.saturating_mul(options.urls.len()))
                .max_idle_connections_per_host(options.concurrency)
                .max_idle_age(IDLE)
        };
        let (agent, local) = (config().build().into(), config().proxy(None).build().into());
        Client { agent, local, key: options.key.clone(), api: options.api, process }
    }

    /// Sends `body` as request `number`. The key is removed from all answers and errors.
    pub fn ask(&self, target: &Target<'_>, body: &str, number: u64) -> Result<Reply, Fault> {
        let result = self.exchange(target, body, number);
        result.map_err(|fault| Fault { why: self.hidden(fault.why), ..fault })
    }

    fn hidden(&self, text: String) -> String {
        match &self.key {
            Some(key) => key.hidden_in(text),
            None => text,
        }
    }

    fn exchange(&self, target: &Target<'_>, body: &str, number: u64) -> Result<Reply, Fault> {
        let home: Uri = format!("{}/{}", target.base, self.api.path())
            .parse()
            .map_err(|_| Fault::new(Blame::Refused, "has no usable address"))?;
        let mut at = home.clone();
        let agent = if target.local { &self.local } else { &self.agent };
        let result = self.exchange_with(agent, &home, &mut at, body, number);
        result.map_err(|fault| match at == home {
            true => fault,
            false => Fault { why: format!("redirects to {}, which {}", place(&at), fault.why), ..fault },
        })
    }

    /// The same; `at` is set to the URL that was requested last.
    fn exchange_with(
        &self,
        agent: &Agent,
        home: &Uri,
        at: &mut Uri,
        body: &str,
        number: u64,
    ) -> Result<Reply, Fault> {
        let id = format!("{:08x}{OURS}{number:012x}", self.process);
        let response = self.send(agent, home, at, body, &id)?;
        let status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(self.refusal(status, response));
        }
        let header =
            response.headers().get("x-request-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let read = || Reply::of(&self.parsed(&self.content(response, LONGEST)?)?, self.api);
        let reply = read().map_err(|why| Fault::new(Blame::Either, why))?;
        // Some servers repeat the request id (vLLM in the id of the answer). If a different id of ours is found, the
        // answer belongs to another request.
        let ids = [header.as_deref(), reply.id.as_deref()];
        if ids.into_iter().flatten().any(|found| found.contains(OURS) && !found.contains(&id)) {
            return Err(Fault::new(Blame::Either, "answers a different request than the one that was sent"));
        }
        Ok(reply)
    }

    /// Sends the request and follows redirects. The key is sent only to the server's own origin.
    fn send(
        &self,
        agent: &Agent,
        home: &Uri,
        at: &mut Uri,
        body: &str,
        id: &str,
    ) -> Result<Response<Body>, Fault> {
        let never = |why: String| Fault::new(Blame::Refused, why);
        let mut next = home.clone();
        for _ in 0..=REDIRECTS {
            *at = next;
            let mut request =
                Request::post(at.clone()).header(CONTENT_TYPE, "application/json").header("x-request-id", id);
            if let Some(key) = self.key.as_ref().filter(|_| same_origin(home, at)) {
                request = request.header(AUTHORIZATION, key.bearer());
            }
            let request = request.body(body).map_err(|_| never("has no usable address".into()))?;
            let response = agent.run(request).map_err(|error| unanswered(&error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 307 | 308) {
                return Ok(response);
            }
            next = redirected(at, response.headers().get(LOCATION)).map_err(never)?;
        }
        *at = home.clone();
        Err(never(format!("redirects more than {REDIRECTS} times")))
    }

    /// Parses the JSON of an answer and removes the key, which escapes may have hidden in the raw text.
    fn parsed(&self, text: &str) -> Result<Value, String> {
        let mut body = parsed(text)?;
        self.hide(&mut body);
        Ok(body)
    }

    fn hide(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.hidden(std::mem::take(text)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide(item)),
            Value::Object(fields) => {
                let hidden = std::mem::take(fields).into_iter().map(|(name, mut field)| {
                    self.hide(&mut field);
                    (self.hidden(name), field)
                });
                *fields = hidden.collect();
            }
            _ => {}
        }
    }

    /// The text of an answer, with the key removed.
    fn content(&self, mut response: Response<Body>, longest: u64) -> Result<String, String> {
        match response.body_mut().with_config().limit(longest).read_to_vec() {
            Ok(bytes) => Ok(self.hidden(String::from_utf8_lossy(&bytes).into_owned())),
            Err(ureq::Error::BodyExceedsLimit(_)) => Err(format!("answers with more than {}", size(longest))),
            Err(error) => Err(unanswered(&error).why),
        }
    }

    /// The fault for a status other than success.
    fn refusal(&self, status: u16, response: Response<Body>) -> Fault {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let wait = header(RETRY_AFTER).and_then(|value| retry_after::wait(value, header(DATE)));
        let said = self.content(response, LONGEST_ERROR).unwrap_or_default();
        let message = match self.parsed(&said) {
            Ok(body) => error_message(&body).unwrap_or_default(),
            Err(_) => start(said.trim()),
        };
        let blame = match status {
            // The account has no credit left, so waiting does not help.
            429 if said.contains("insufficient_quota") => Blame::Refused,
            429 => Blame::Pace,
            502 | 503 => Blame::Server,
            408 | 409 | 425 | 500..=599 => Blame::Either,
            401..=405 | 410 | 300..=399 => Blame::Refused,
            _ => Blame::Question,
        };
        let message = if message.is_empty() { String::new() } else { format!(" ({message})") };
        Fault { wait, status: Some(status), ..Fault::new(blame, format!("answers {status}{message}")) }
    }
}

/// The fault for a request without a complete answer.
fn unanswered(error: &ureq::Error) -> Fault {
    let (blame, why) = match error {
        ureq::Error::HostNotFound => (Blame::Server, "cannot be reached (there is no such host)".to_owned()),
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            (Blame::Server, "cannot be reached in time".to_owned())
        }
        ureq::Error::Timeout(_) => (Blame::Either, "does not answer in time".to_owned()),
        ureq::Error::ConnectionFailed => (Blame::Server, "cannot be reached".to_owned()),
        ureq::Error::Io(error) if is_refusal(error) => {
            (Blame::Server, format!("cannot be reached ({error})"))
        }
        ureq::Error::Io(error) => (Blame::Either, format!("cuts the connection ({error})")),
        ureq::Error::Protocol(error) => (Blame::Either, format!("does not speak HTTP ({error})")),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            (Blame::Refused, format!("cannot be trusted ({error})"))
        }
        other => (Blame::Either, format!("does not answer ({other})")),
    };
    Fault::new(blame, why)
}

fn is_refusal(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}
