//! How text is drawn from a model.

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
    /// Longest response in tokens [default: 64, 1024 in chat, in eval as in --run, or 256]
    #[arg(long, value_name = "TOKENS", aliases = ["max-completion-length", "response-length", "max-tokens"])]
    max_new_tokens: Option<usize>,
    /// Logits are divided by it; 0 always takes the likeliest token [default: 0.9 in align, in eval as in --run, or 0.9, 1 in generate, 0.7 in chat]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Draw from the K likeliest tokens; 0: from all [default: 0]
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Draw from the likeliest tokens that together have this probability [default: 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Draw from the tokens at least this probable relative to the likeliest [default: 0]
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,
    /// End a response before this text; can be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Sequences decoded side by side [default: all that there are, at most 64]
    #[arg(long, value_name = "N")]
    slots: Option<usize>,
}

/// What the sampling flags ask for.
#[derive(Debug)]
pub(crate) struct SamplingPlan {
    pub params: SamplingParams,
    pub max_new_tokens: usize,
    pub stop: Vec<String>,
    pub slots: Option<usize>,
}

impl SamplingArgs {
    /// Takes what the configuration of a run says where nothing was given.
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

    /// Fills in what was not given.
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
            return Err(Error::config("--stop", "is empty, which would end every response at once"));
        }
        Ok(SamplingPlan {
            params,
            max_new_tokens: positive("--max-new-tokens", max_new_tokens)?,
            stop: self.stop.clone(),
            slots: self.slots.map(|n| positive("--slots", n)).transpose()?,
        })
    }
}
