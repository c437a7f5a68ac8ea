//! Sampling flags.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{ensure, positive};
use crate::error::{Error, Result};
use crate::generate::SamplingParams;

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Sampling")]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SamplingArgs {
    /// Maximum number of tokens of a response [default: 64; chat: 1024; eval: the value of --run, or 256]
    #[arg(long, value_name = "TOKENS", aliases = ["max-completion-length", "response-length", "max-tokens"])]
    max_new_tokens: Option<usize>,
    /// Sampling temperature; 0 always takes the most probable token [default: align: 0.9, rloo and grpo 1; eval: the value of
    /// --run, or 0.9; generate: 1; chat: 0.7]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Sample from the K most probable tokens; 0 for all tokens [default: 0]
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Sample from the most probable tokens whose probabilities add up to P [default: 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Sample from the tokens whose probability is at least P times that of the most probable token [default: 0]
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,
    /// End a response before this text; can be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Number of sequences decoded in parallel [default: all sequences, at most 64]
    #[arg(long, value_name = "N")]
    slots: Option<usize>,
}

/// The sampling flags, checked.
#[derive(Debug)]
pub(crate) struct SamplingPlan {
    pub params: SamplingParams,
    pub max_new_tokens: usize,
    pub stop: Vec<String>,
    pub slots: Option<usize>,
}

impl SamplingArgs {
    /// Fills in the flags that were not given from the configuration of a run.
    pub fn prefer(&mut self, config: &Value) {
        let number = |name: &str| config[name].as_f64();
        let whole = |name: &str| config[name].as_u64();
        self.max_new_tokens = self.max_new_tokens.or(whole("max-new-tokens").map(|n| n as usize));
        self.temperature = self.temperature.or(number("temperature"));
        self.top_k = self.top_k.or(whole("top-k").map(|k| k as u32));
        self.top_p = self.top_p.or(number("top-p"));
        self.min_p = self.min_p.or(number("min-p"));
        if self.stop.is_empty() {
            let stop = config["stop"].as_array().into_iter().flatten();
            self.stop.extend(stop.filter_map(Value::as_str).map(str::to_owned));
        }
    }

    /// Fills in the defaults.
    pub fn plan(&mut self, default_temperature: f64, default_tokens: usize) -> Result<SamplingPlan> {
        let temperature = *self.temperature.get_or_insert(default_temperature);
        let max_new_tokens = *self.max_new_tokens.get_or_insert(default_tokens);
        let top_k = *self.top_k.get_or_insert(0);
        let top_p = *self.top_p.get_or_insert(1.0);
        let min_p = *self.min_p.get_or_insert(0.0);
        let params = SamplingParams {
            temperature: temperature as f32,
            top_k,
            top_p: top_p as f32,
            min_p: min_p as f32,
        };
        ensure(top_p > 0.0 && top_p <= 1.0, "--top-p", top_p, "above 0 and at most 1")?;
        ensure((0.0..=1.0).contains(&min_p), "--min-p", min_p, "between 0 and 1")?;
        params.check()?;
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::config("--stop", "is empty: every response would end at once"));
        }
        Ok(SamplingPlan {
            params,
            max_new_tokens: positive("--max-new-tokens", max_new_tokens)?,
            stop: self.stop.clone(),
            slots: self.slots.map(|n| positive("--slots", n)).transpose()?,
        })
    }
}
