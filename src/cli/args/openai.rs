//! Flags of judges over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::judge::seconds_of;
use super::paths::{InputPath, given};
use crate::error::Result;
use crate::judge::llm::Orders;
use crate::judge::openai::{Api, Key, OpenAiOptions, RatingTemplate};

impl ValueEnum for Api {
    fn value_variants<'a>() -> &'a [Api] {
        &[Api::Chat, Api::Completions]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Api::Chat => PossibleValue::new("chat").help("Send the template as a user message"),
            Api::Completions => {
                PossibleValue::new("completions").help("Send the template as a text to continue")
            }
        })
    }
}

// All flags are optional, to distinguish a flag that was given from its default.
#[derive(Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Judge over HTTP (--judge openai)")]
#[serde(rename_all = "kebab-case")]
pub(super) struct OpenAiArgs {
    /// URL of a server, such as http://localhost:8000/v1; repeat it to distribute requests over several servers
    #[arg(long, value_name = "URL")]
    judge_url: Vec<String>,
    /// API endpoint [default: chat]
    #[arg(long, value_name = "API")]
    judge_api: Option<Api>,
    /// System message (with --judge-api chat)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    judge_system: Option<String>,
    /// Environment variable with the API key [default: OPENAI_API_KEY]
    #[arg(long, value_name = "NAME", conflicts_with = "judge_key_file")]
    judge_key_env: Option<String>,
    /// File with the API key
    #[arg(long, value_name = "FILE")]
    judge_key_file: Option<PathBuf>,
    /// The template asks for reasons, followed by a last line such as "Verdict: 1"
    #[arg(long)]
    judge_reasons: bool,
    /// Maximum number of tokens of an answer with reasons [default: 512]
    #[arg(long, value_name = "N")]
    judge_max_tokens: Option<u32>,
    /// The template allows the answer "tie"
    #[arg(long)]
    judge_ties: bool,
    /// Sampling temperature of the judge [default: 0]
    #[arg(long, value_name = "T")]
    judge_temperature: Option<f64>,
    /// Number of most probable tokens to request (top_logprobs) [default: 20]
    #[arg(long, value_name = "N")]
    judge_most_probable: Option<u32>,
    /// Read verdicts from the text even if the server returns log-probabilities
    #[arg(long)]
    judge_no_logprobs: bool,
    /// Compare responses by separate ratings from 1 to 10
    #[arg(long)]
    judge_pointwise: bool,
    /// Template file for ratings, with {{ prompt }} and {{ response }} [default: a built-in template]
    #[arg(long, value_name = "FILE")]
    judge_rating_template: Option<PathBuf>,
    /// Maximum number of concurrent requests per server [default: 8]
    #[arg(long, value_name = "N")]
    judge_concurrency: Option<usize>,
    /// Maximum number of requests per minute and server [default: no limit]
    #[arg(long, value_name = "N")]
    judge_requests_per_minute: Option<u32>,
    /// Maximum number of tokens per minute and server, prompts and completions together [default: no limit]
    #[arg(long, value_name = "N")]
    judge_tokens_per_minute: Option<u32>,
    /// Maximum number of retries of a failed request [default: 5]
    #[arg(long, value_name = "N")]
    judge_retries: Option<u32>,
    /// Save and end the run if no server has answered for this long [default: 600]
    #[arg(long, value_name = "SECONDS")]
    judge_patience: Option<f64>,
    /// Maximum number of requests; the run then saves and ends [default: no limit]
    #[arg(long, value_name = "N")]
    judge_max_requests: Option<u64>,
    /// Maximum cost, by --judge-price-prompt and --judge-price-completion; the run then saves and ends [default: no limit]
    #[arg(long, value_name = "MONEY")]
    judge_max_cost: Option<f64>,
    /// Price of a million prompt tokens
    #[arg(long, value_name = "MONEY")]
    judge_price_prompt: Option<f64>,
    /// Price of a million completion tokens
    #[arg(long, value_name = "MONEY")]
    judge_price_completion: Option<f64>,
    /// Cache folder for verdicts, shared by runs
    #[arg(long, value_name = "DIR")]
    judge_cache: Option<PathBuf>,
}

impl OpenAiArgs {
    /// The files and folders that the judge reads, with their flags.
    pub fn inputs(&self) -> Vec<InputPath> {
        given([
            ("--judge-key-file", self.judge_key_file.clone()),
            ("--judge-rating-template", self.judge_rating_template.clone()),
            ("--judge-cache", self.judge_cache.clone()),
        ])
    }

    /// Checks the flags. `model` is the name on the servers.
    pub fn plan(
        &self,
        model: String,
        orders: Orders,
        timeout: Duration,
        instruction: Option<&str>,
    ) -> Result<OpenAiOptions> {
        let usual = OpenAiOptions::default();
        let rating = match &self.judge_rating_template {
            Some(file) => Some(RatingTemplate::from_file(file)?),
            // The built-in template asks for no reasons: scores are then computed from comparisons.
            None if self.judge_reasons && !self.judge_pointwise => None,
            None => Some(RatingTemplate::builtin()),
        };
        let rating = match (rating, instruction) {
            (Some(rating), Some(instruction)) if self.judge_pointwise => {
                Some(rating.with_instruction(instruction)?)
            }
            (rating, _) => rating,
        };
        let patience = match self.judge_patience {
            None => usual.patience,
            Some(seconds) => seconds_of("--judge-patience", seconds)?,
        };
        let options = OpenAiOptions {
            model,
            api: self.judge_api.unwrap_or_default(),
            system: self.judge_system.clone(),
            orders,
            log_probabilities: !self.judge_no_logprobs,
            most_probable: self.judge_most_probable.unwrap_or(usual.most_probable),
            reasons: self.judge_reasons,
            max_tokens: self.judge_max_tokens.unwrap_or(usual.max_tokens),
            ties: self.judge_ties,
            temperature: self.judge_temperature.unwrap_or(usual.temperature),
            rating,
            pointwise: self.judge_pointwise,
            urls: self.judge_url.clone(),
            key: Key::find(self.judge_key_env.as_deref(), self.judge_key_file.as_deref())?,
            timeout,
            retries: self.judge_retries.unwrap_or(usual.retries),
            patience,
            concurrency: self.judge_concurrency.unwrap_or(usual.concurrency),
            requests_per_minute: self.judge_requests_per_minute,
            tokens_per_minute: self.judge_tokens_per_minute,
            max_requests: self.judge_max_requests,
            max_cost: self.judge_max_cost,
            price_prompt: self.judge_price_prompt.unwrap_or(usual.price_prompt),
            price_completion: self.judge_price_completion.unwrap_or(usual.price_completion),
            cache: self.judge_cache.clone(),
            ..usual
        };
        options.check()?;
        Ok(options)
    }
}
