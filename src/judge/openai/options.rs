//! What there is to choose about judges that are reached over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use derive_setters::Setters;

use super::key::Key;
use super::rating::RatingTemplate;
use super::verdict::Form;
use crate::error::{Error, Result};
use crate::judge::llm::Orders;

/// How a server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/chat/completions`: what the template makes is the user's message, which the server puts into the model's chat
    /// template.
    #[default]
    Chat,
    /// `/completions`: what the template makes is continued as it is, as the judge `llm` does.
    Completions,
}

impl Api {
    /// What is asked below a base.
    pub(super) fn path(self) -> &'static str {
        match self {
            Api::Chat => "chat/completions",
            Api::Completions => "completions",
        }
    }

    /// As an option names it.
    pub fn name(self) -> &'static str {
        match self {
            Api::Chat => "chat",
            Api::Completions => "completions",
        }
    }
}

/// Options of [`OpenAi`](super::OpenAi). The first group decides verdicts and so is part of the judge's identity.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct OpenAiOptions {
    /// The model's name, as the servers know it.
    #[setters(into)]
    pub model: String,
    /// How the servers are asked.
    pub api: Api,
    /// A system message before the question (chat alone).
    #[setters(into)]
    pub system: Option<String>,
    /// Which orders of the two responses are asked about, a request each.
    pub orders: Orders,
    /// Ask for the answer tokens' log-probabilities; a server that gives none is read by its text.
    pub log_probabilities: bool,
    /// How many of the most probable tokens they are asked for. A judge that is not made for such questions may have its
    /// answers further down; OpenAI gives 20, vLLM what `--max-logprobs` says, llama.cpp all. Fewer are asked for where a
    /// server refuses. No more than are needed: down there are tokens of single bytes, written like the others, and a
    /// server that lists tokens by their texts (llama-cpp-python) keeps the less probable of two.
    pub most_probable: u32,
    /// The template asks for reasons and then for a last line `Verdict: 1` (or 2, tie; or a rating).
    pub reasons: bool,
    /// Longest answer with reasons, in tokens.
    pub max_tokens: u32,
    /// The template allows the answer "tie".
    pub ties: bool,
    /// Of the answer's tokens. Above 0 verdicts that are read from texts are drawn at random.
    pub temperature: f64,
    /// What asks for the rating of a single response, 1 to 10. With it [`Ask::Rate`](crate::judge::queue::Ask) is taken.
    #[setters(into)]
    pub rating: Option<RatingTemplate>,
    /// Compare by rating each response by itself: p = σ(s₁ − s₂).
    pub pointwise: bool,

    /// The servers, `http://HOST/v1` each; all serve the same model.
    #[setters(into)]
    pub urls: Vec<String>,
    /// What the servers ask for.
    #[setters(into)]
    pub key: Option<Key>,
    /// Longest time until a connection stands.
    pub connect_timeout: Duration,
    /// Longest time for a request in all.
    pub timeout: Duration,
    /// Further tries of a request that failed in a way that may be the question's doing. Where the server is at fault for
    /// certain (it cannot be reached, it is overloaded) a try does not count, and `patience` alone ends it.
    pub retries: u32,
    /// Before the second try a random time up to this is waited, before each further one up to twice as long.
    pub backoff: Duration,
    /// How long no server at all may answer before the judge gives up.
    pub patience: Duration,
    /// Failures in a row after which a server is left alone.
    pub break_after: u32,
    /// For how long it is at first.
    pub break_for: Duration,
    /// Requests at a time to one server.
    pub concurrency: usize,
    /// Requests a minute to one server.
    #[setters(into)]
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute of one server, those of the question and of the answer.
    #[setters(into)]
    pub tokens_per_minute: Option<u32>,
    /// Requests in all, failed ones included.
    #[setters(into)]
    pub max_requests: Option<u64>,
    /// Money in all. A request that failed is taken to cost nothing.
    #[setters(into)]
    pub max_cost: Option<f64>,
    /// Price of a million tokens that are read.
    pub price_prompt: f64,
    /// Price of a million tokens that are written.
    pub price_completion: f64,
    /// Folder for verdicts, which are not paid for again by any run.
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

/// Servers times requests at a time: each is a thread.
const MOST_THREADS: usize = 1024;

impl OpenAiOptions {
    /// Whether the values make sense, each by itself and together.
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
                "is empty: give the name that the server knows the model by",
            ),
            (
                !self.urls.is_empty(),
                "judge-url",
                "is missing: give a server's address, such as http://localhost:8000/v1",
            ),
            (
                self.system.is_none() || self.api == Api::Chat,
                "judge-system",
                "is for `judge-api` chat: put it into the template",
            ),
            ((0.0..=2.0).contains(&self.temperature), "judge-temperature", "is not between 0 and 2"),
            (self.most_probable >= 2, "judge-most-probable", "is less than 2, and there are two answers"),
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
                "makes more than 1024 requests at a time in all: lower it",
            ),
            (self.requests_per_minute != Some(0), "judge-requests-per-minute", "is 0, at least 1 is needed"),
            (self.tokens_per_minute != Some(0), "judge-tokens-per-minute", "is 0, at least 1 is needed"),
            (self.max_requests != Some(0), "judge-max-requests", "is 0: nothing could be asked"),
            (self.max_cost.is_none_or(is_amount), "judge-max-cost", "is no amount of money"),
            (is_amount(self.price_prompt), "judge-price-prompt", "is no price"),
            (is_amount(self.price_completion), "judge-price-completion", "is no price"),
            (
                self.max_cost.is_none() || priced,
                "judge-max-cost",
                "needs the prices of a million tokens, read and written",
            ),
            (self.backoff <= Duration::from_secs(600), "judge-backoff", "is longer than 10 minutes"),
        ];
        match checks.into_iter().find(|(good, ..)| !good) {
            Some((_, option, why)) => Err(Error::config(option, why)),
            None => Ok(()),
        }
    }

    /// What an answer may look like.
    pub(super) fn form(&self) -> Form {
        Form { reasons: self.reasons, ties: self.ties, first_line: self.api == Api::Completions }
    }

    /// What so many tokens cost.
    pub(super) fn cost(&self, read: f64, written: f64) -> f64 {
        (read * self.price_prompt + written * self.price_completion) / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
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
