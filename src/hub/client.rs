//! Requests to the hub: redirects without leaking the token, retries, and the meaning of errors.

use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, Method, Request, Response, Uri};
use ureq::{Agent, Body};

use super::listing::Listing;
use super::names::{Etag, Kind, Repo, quoted};
use super::settings::{Settings, Token};
use crate::error::Error;
use crate::redirects::{place, redirected, same_origin};

const REDIRECTS: usize = 10;
/// The number of attempts before a request fails.
pub(super) const TRIES: u32 = 5;
/// The longest wait that a hub may request.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A client of one hub.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    pub endpoint: String,
    token: Option<Token>,
    pub backoff: Duration,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The hub refused, or sent something invalid.
    Refused(Error),
    /// There was no answer, or an error that may be temporary.
    Unreachable(String, Retry),
}

/// Whether another attempt may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    /// After this time or the usual backoff, whichever is longer.
    After(Duration),
}

const SOON: Retry = Retry::After(Duration::ZERO);

/// The answer to a request, from the hub or from a server that it redirects to.
pub(super) struct Answer {
    pub response: Response<Body>,
    /// The headers that the hub itself sent.
    pub facts: Facts,
}

/// What the hub reports about a file in the headers of its answer.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub commit: Option<String>,
    etag: Option<String>,
    linked_etag: Option<String>,
    size: Option<String>,
    linked_size: Option<String>,
}

impl Facts {
    /// Adds headers. The length and the etag of a redirect are not those of the file.
    fn add(&mut self, headers: &HeaderMap, redirects: bool) {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
        self.commit = text("x-repo-commit").or(self.commit.take());
        self.linked_etag = text("x-linked-etag").or(self.linked_etag.take());
        self.linked_size = text("x-linked-size").or(self.linked_size.take());
        self.etag = text(ETAG.as_str()).or(self.etag.take());
        if !redirects {
            self.size = text(CONTENT_LENGTH.as_str());
        }
    }

    /// The etag; `None` if there is none that is usable.
    pub fn etag(&self) -> Option<Etag> {
        Etag::parse(self.linked_etag.as_ref().or(self.etag.as_ref())?)
    }

    /// The size in bytes, or the text that is not a valid size.
    pub fn size(&self) -> Option<Result<u64, &str>> {
        let text = self.linked_size.as_ref().or(self.size.as_ref())?;
        Some(text.trim().parse().map_err(|_| text.as_str()))
    }
}

impl Client {
    pub fn new(settings: &Settings) -> Client {
        let timeout = Some(settings.timeout);
        let config = Agent::config_builder()
            .user_agent(concat!("oaif/", env!("CARGO_PKG_VERSION")))
            // Without compression, so that lengths are those of the files.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout.map(|time| 3 * time))
            .timeout_per_read(timeout)
            .build();
        Client {
            agent: config.into(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            backoff: settings.backoff,
        }
    }

    /// Requests the listing of a repository at its revision. `patient` repeats the request if there is no answer.
    pub fn listing(&self, repo: &Repo, patient: bool) -> Result<Listing, Failure> {
        let kind = match repo.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        let revision = quoted(&repo.revision, false);
        let url = format!("{}/api/{kind}/{}/revision/{revision}?blobs=true", self.endpoint, repo.id);
        self.retry(if patient { TRIES } else { 1 }, || {
            let answer = self.ask(repo, None, Method::GET, &url, 0)?;
            Listing::read(repo, answer.response)
        })
    }

    /// The address of a file of a repository.
    pub fn url(&self, repo: &Repo, commit: &str, name: &str) -> String {
        let kind = match repo.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        };
        format!("{}/{kind}{}/resolve/{commit}/{}", self.endpoint, repo.id, quoted(name, true))
    }

    /// Repeats a request until it succeeds, is refused, or has failed `tries` times.
    pub fn retry<T>(&self, tries: u32, mut once: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut tried = 1;
        loop {
            match once() {
                Err(Failure::Unreachable(_, Retry::After(time))) if tried < tries => self.wait(tried, time),
                done => return done,
            }
            tried += 1;
        }
    }

    /// Waits after this number of failures.
    pub fn wait(&self, failures: u32, retry_after: Duration) {
        std::thread::sleep((self.backoff * 2u32.pow(failures - 1)).max(retry_after.min(LONGEST_WAIT)));
    }

    /// Sends one request about `file`, or about the repository itself, and follows redirects. `from` is the first byte
    /// that is requested. A HEAD request does not follow redirects away from the hub, since only the hub's own headers
    /// are needed.
    pub fn ask(
        &self,
        repo: &Repo,
        file: Option<&str>,
        method: Method,
        url: &str,
        from: u64,
    ) -> Result<Answer, Failure> {
        let refused = |why: String| Failure::Refused(Error::hub(repo, why));
        let home: Uri = self.endpoint.parse().expect("an endpoint is an address");
        let mut uri: Uri = url.parse().map_err(|_| refused(format!("has an invalid address ({url:?})")))?;
        let mut facts = Facts::default();
        for _ in 0..=REDIRECTS {
            let at_home = same_origin(&home, &uri);
            let mut request = Request::builder().method(method.clone()).uri(uri.clone());
            if let Some(token) = self.token.as_ref().filter(|_| at_home) {
                request = request.header(AUTHORIZATION, token.bearer());
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let request = request.body(()).expect("a token and a number are good headers");
            let response = self.agent.run(request).map_err(|error| unreachable(&uri, &error))?;
            let status = response.status();
            let next = match status.as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers().get(LOCATION),
                _ => None,
            };
            if at_home {
                facts.add(response.headers(), next.is_some());
            }
            let Some(next) = next else {
                // A range that does not exist is handled by the caller.
                let done = status.is_success() || (from > 0 && status.as_u16() == 416);
                return match (done, at_home) {
                    (true, _) => Ok(Answer { response, facts }),
                    (false, true) => Err(self.refusal(repo, file, &uri, &response)),
                    // The error of another server is temporary: for example, a signed address has expired, and the hub
                    // issues a new one.
                    (false, false) => Err(Failure::Unreachable(
                        format!("{} answers {}", place(&uri), status.as_u16()),
                        SOON,
                    )),
                };
            };
            let next =
                redirected(&uri, Some(next)).map_err(|why| refused(format!("{} {why}", place(&uri))))?;
            if method == Method::HEAD && !same_origin(&home, &next) {
                return Ok(Answer { response, facts });
            }
            uri = next;
        }
        Err(refused(format!("{} redirects more than {REDIRECTS} times", place(&home))))
    }

    /// Converts a status other than success to an error.
    fn refusal(&self, repo: &Repo, file: Option<&str>, uri: &Uri, response: &Response<Body>) -> Failure {
        let header =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let code = header("x-error-code");
        let status = response.status().as_u16();
        let host = place(uri);
        let what = match repo.kind {
            Kind::Model => "model",
            Kind::Dataset => "dataset",
        };
        let why = match (status, code) {
            (401 | 403, "GatedRepo") => format!(
                "is gated ({status} from {host}): accept its licence on {}/{}, then set HF_TOKEN to a token of that account",
                self.endpoint,
                match repo.kind {
                    Kind::Model => repo.id.clone(),
                    Kind::Dataset => format!("datasets/{}", repo.id),
                }
            ),
            (401, _) if self.token.is_none() => format!(
                "is private or does not exist (401 from {host}): check the name, or set HF_TOKEN to a token with access"
            ),
            (401, _) => format!(
                "is not accessible with this token, or does not exist (401 from {host}): check the name, and HF_TOKEN or the \
                 token's file"
            ),
            (403, _) => {
                format!("is not accessible (403 from {host}): set HF_TOKEN to a token with access")
            }
            (404, "EntryNotFound" | "") if file.is_some() => format!(
                "has no file {} at this revision (404 from {host}): check the revision after @",
                file.unwrap_or_default()
            ),
            (404, "RevisionNotFound") => format!(
                "has no revision {} (404 from {host}): give a branch, tag or commit after @",
                repo.revision
            ),
            (404 | 410, _) => format!("does not exist as a {what} ({status} from {host}): check the name"),
            (451, _) => format!("is not available for legal reasons (451 from {host})"),
            (408 | 425 | 429 | 500..=599, _) => {
                let retry_after =
                    header(RETRY_AFTER.as_str()).parse().map_or(Duration::ZERO, Duration::from_secs);
                let why = format!("{host} answers {status}");
                return Failure::Unreachable(why, Retry::After(retry_after));
            }
            _ => {
                let why =
                    format!("unexpected status {status} from {host}: try again later, or check HF_ENDPOINT");
                return Failure::Refused(Error::hub(repo, why));
            }
        };
        Failure::Refused(Error::config(repo.to_string(), why))
    }
}

fn unreachable(uri: &Uri, error: &ureq::Error) -> Failure {
    let host = place(uri);
    let (why, retry) = match error {
        ureq::Error::HostNotFound => (format!("{host} cannot be reached (unknown host)"), Retry::Never),
        ureq::Error::Timeout(_) => (format!("{host} does not answer in time"), SOON),
        ureq::Error::Io(error) => (format!("{host} cannot be reached ({error})"), SOON),
        ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
            (format!("{host} cannot be reached ({error})"), SOON)
        }
        other => (format!("{host} cannot be reached ({other})"), Retry::Never),
    };
    Failure::Unreachable(why, retry)
}

/// The failure for an error while reading a body.
pub(super) fn broken(error: &std::io::Error) -> Failure {
    let timeout = matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock);
    let why = if timeout {
        "the connection timed out".to_owned()
    } else {
        format!("the connection broke ({error})")
    };
    Failure::Unreachable(why, SOON)
}
