//! Options of judges behind an HTTP API.

use std::path::PathBuf;
use std::time::Duration;

use derive_setters::Setters;

use super::key::Key;
use super::rating::RatingTemplate;
use super::verdict::Form;
use crate::error::{Error, Result};
use crate::judge::llm::Orders;

/// The endpoint of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/chat/completions`: the rendered template is the user's message, which the server puts into the model's chat
    /// template.
    #[default]
    Chat,
    /// `/completions`: the model continues the rendered template as it is, as for the judge `llm`.
    Completions,
}

impl Api {
    /// The path of the endpoint below a base URL.
    pub(super) fn path(self) -> &'static str {
        match self {
            Api::Chat => "chat/completions",
            Api::Completions => "completions",
        }
    }

    /// The name of the option value.
    pub fn name(self) -> &'static str {
        match self {
            Api::Chat => "chat",
            Api::Completions => "completions",
        }
    }
}

/// Options of [`OpenAi`](super::OpenAi). The first group affects verdicts and is therefore part of the judge's
/// identity.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct OpenAiOptions {
    /// The model's name on the servers.
    #[setters(into)]
    pub model: String,
    /// The endpoint.
    pub api: Api,
    /// A system message before the question (only for chat).
    #[setters(into)]
    pub system: Option<String>,
    /// Which orders of the two responses are judged; one request each.
    pub orders: Orders,
    /// Request the log-probabilities of the answer tokens; if a server returns none, its text is used.
    pub log_probabilities: bool,
    /// The number of most probable tokens to request. A model that was not trained for such questions may rank the
    /// answers further down; OpenAI returns up to 20, vLLM up to `--max-logprobs`, llama.cpp any number. If a server
    /// refuses the number, fewer are requested. Do not request more than needed: among the improbable tokens are single
    /// bytes that look like other tokens, and a server that lists tokens by their text (llama-cpp-python) keeps the
    /// less probable of two.
    pub most_probable: u32,
    /// The template asks for reasons followed by a last line `Verdict: 1` (or 2, tie; or a rating).
    pub reasons: bool,
    /// Limit on the length of an answer with reasons, in tokens.
    pub max_tokens: u32,
    /// The template allows the answer "tie".
    pub ties: bool,
    /// The sampling temperature. Above 0, verdicts that are read from the text are random.
    pub temperature: f64,
    /// The template that asks for the rating of a single response, 1 to 10. If set,
    /// [`Ask::Rate`](crate::judge::queue::Ask) is accepted.
    #[setters(into)]
    pub rating: Option<RatingTemplate>,
    /// Compare by rating each response by itself: p = σ(s₁ − s₂).
    pub pointwise: bool,

    /// The servers, `http://HOST/v1` each; all must serve the same model.
    #[setters(into)]
    pub urls: Vec<String>,
    /// The API key.
    #[setters(into)]
    pub key: Option<Key>,
    /// Timeout for establishing a connection.
    pub connect_timeout: Duration,
    /// Timeout for a whole request.
    pub timeout: Duration,
    /// The number of retries of a request that failed for a reason that may lie in the question. A failure that
    /// certainly lies in the server (it is unreachable or overloaded) does not count as a try; only `patience` limits
    /// those.
    pub retries: u32,
    /// The wait before the first retry is random, up to this time; each further one is up to twice as long.
    pub backoff: Duration,
    /// How long all servers may be silent before the judge fails.
    pub patience: Duration,
    /// The number of failures in a row after which a server gets no requests for a while.
    pub break_after: u32,
    /// The length of the first such pause.
    pub break_for: Duration,
    /// The number of concurrent requests per server.
    pub concurrency: usize,
    /// Limit on requests per minute per server.
    #[setters(into)]
    pub requests_per_minute: Option<u32>,
    /// Limit on tokens per minute per server, prompt and completion together.
    #[setters(into)]
    pub tokens_per_minute: Option<u32>,
    /// Limit on the total number of requests, including failed ones.
    #[setters(into)]
    pub max_requests: Option<u64>,
    /// Limit on the total cost. A failed request counts as free.
    #[setters(into)]
    pub max_cost: Option<f64>,
    /// Price of a million prompt tokens.
    pub price_prompt: f64,
    /// Price of a million completion tokens.
    pub price_completion: f64,
    /// Folder of a cache of verdicts that all runs share.
    #[setters(into)]
    pub cache: Option<PathBuf>,
}

impl Default for OpenAiOptions {
    fn default() -> OpenAiOptions {
        OpenAiOptions {
            model: String::new(),
            api: Api::default(),
            system: None,
            orders: Orders::default(),
            log_probabilities: true,
            most_probable: 20,
            reasons: false,
            max_tokens: 512,
            ties: false,
            temperature: 0.0,
            rating: None,
            pointwise: false,
            urls: Vec::new(),
            key: None,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            retries: 5,
            backoff: Duration::from_millis(500),
            patience: Duration::from_secs(600),
            break_after: 5,
            break_for: Duration::from_secs(2),
            concurrency: 8,
            requests_per_minute: None,
            tokens_per_minute: None,
            max_requests: None,
            max_cost: None,
            price_prompt: 0.0,
            price_completion: 0.0,
            cache: None,
        }
    }
}

/// Limit on servers times concurrent requests: each is a thread.
const MOST_THREADS: usize = 1024;

impl OpenAiOptions {
    /// Checks the values, each by itself and in combination.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self) -> Result<()> {
        let is_amount = |value: f64| value.is_finite() && value >= 0.0;
        let priced = self.price_prompt > 0.0 || self.price_completion > 0.0;
        let checks: [(bool, &str, &str); 19] = [
            (
                !self.model.trim().is_empty(),
                "judge-model",
                "is empty: give the name of the model on the server",
            ),
            (
                !self.urls.is_empty(),
                "judge-url",
                "is missing: give a server's address, such as http://localhost:8000/v1",
            ),
            (
                self.system.is_none() || self.api == Api::Chat,
                "judge-system",
                "needs `judge-api` chat: put the text into the template instead",
            ),
            ((0.0..=2.0).contains(&self.temperature), "judge-temperature", "is not between 0 and 2"),
            (
                self.most_probable >= 2,
                "judge-most-probable",
                "is less than 2: there are two possible answers",
            ),
            (self.max_tokens >= 1, "judge-max-tokens", "is 0, at least 1 is needed"),
            (
                self.rating.is_some() || !self.pointwise,
                "judge-pointwise",
                "needs a template that asks for a rating",
            ),
            (
                !self.connect_timeout.is_zero() && !self.timeout.is_zero(),
                "judge-timeout",
                "is 0: give a time in seconds",
            ),
            (self.break_after >= 1, "judge-break-after", "is 0, at least 1 failure is needed"),
            (self.concurrency >= 1, "judge-concurrency", "is 0, at least 1 is needed"),
            (
                self.concurrency.saturating_mul(self.urls.len()) <= MOST_THREADS,
                "judge-concurrency",
                "allows more than 1024 concurrent requests in total: lower it",
            ),
            (self.requests_per_minute != Some(0), "judge-requests-per-minute", "is 0, at least 1 is needed"),
            (self.tokens_per_minute != Some(0), "judge-tokens-per-minute", "is 0, at least 1 is needed"),
            (self.max_requests != Some(0), "judge-max-requests", "is 0, at least 1 is needed"),
            (self.max_cost.is_none_or(is_amount), "judge-max-cost", "must be a finite number of 0 or more"),
            (is_amount(self.price_prompt), "judge-price-prompt", "must be a finite number of 0 or more"),
            (
                is_amount(self.price_completion),
                "judge-price-completion",
                "must be a finite number of 0 or more",
            ),
            (
                self.max_cost.is_none() || priced,
                "judge-max-cost",
                "needs judge-price-prompt and judge-price-completion",
            ),
            (self.backoff <= Duration::from_secs(600), "judge-backoff", "is longer than 10 minutes"),
        ];
        match checks.into_iter().find(|(good, ..)| !good) {
            Some((_, option, why)) => Err(Error::config(option, why)),
            None => Ok(()),
        }
    }

    /// The form of an answer.
    pub(super) fn form(&self) -> Form {
        Form { reasons: self.reasons, ties: self.ties, first_line: self.api == Api::Completions }
    }

    /// The cost of these numbers of tokens.
    pub(super) fn cost(&self, read: f64, written: f64) -> f64 {
        (read * self.price_prompt + written * self.price_completion) / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_option_is_refused_by_its_name() {
        let good =
            || OpenAiOptions { model: "m".into(), urls: vec!["http://h/v1".into()], ..Default::default() };
        good().check().unwrap();
        type Spoil = fn(&mut OpenAiOptions);
        let refused: [(&str, Spoil); 12] = [
            ("judge-model", |o| o.model = " ".into()),
            ("judge-url", |o| o.urls.clear()),
            ("judge-system", |o| (o.system, o.api) = (Some("s".into()), Api::Completions)),
            ("judge-temperature", |o| o.temperature = f64::NAN),
            ("judge-pointwise", |o| o.pointwise = true),
            ("judge-timeout", |o| o.timeout = Duration::ZERO),
            ("judge-concurrency", |o| o.concurrency = 0),
            ("judge-concurrency", |o| o.concurrency = usize::MAX),
            ("judge-requests-per-minute", |o| o.requests_per_minute = Some(0)),
            ("judge-max-cost", |o| o.max_cost = Some(1.0)),
            ("judge-max-cost", |o| (o.max_cost, o.price_prompt) = (Some(f64::NAN), 1.0)),
            ("judge-price-prompt", |o| o.price_prompt = -1.0),
        ];
        for (option, spoil) in refused {
            let mut options = good();
            spoil(&mut options);
            let error = options.check().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{option}: ")), "{error}");
        }
    }
}
