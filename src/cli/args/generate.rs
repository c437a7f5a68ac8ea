//! `oaif generate`.

use std::path::PathBuf;

use clap::Args;

use super::gpu::{BaseDtypeArgs, GpuArgs, GpuPlan};
use super::paths::{input_file, optional_output};
use super::policy::{PolicyArgs, PolicyFiles};
use super::positive;
use super::sampling::{SamplingArgs, SamplingPlan};
use crate::cli::fetch::{Fetch, Input};
use crate::data::rows::Columns;
use crate::error::{Error, Result};
use crate::model::FrozenFormat;

/// `oaif generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Prompt; - reads it from standard input
    #[arg(long, value_name = "TEXT", conflicts_with = "prompts", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// File of {"prompt"} rows; - reads them from standard input
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Column of the prompt in --prompts
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    prompt_column: String,
    /// Apply the model's chat template: each prompt is a user message, each response the assistant's turn
    #[arg(long)]
    chat: bool,
    /// System message, with --chat
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    system: Option<String>,
    /// Number of responses to each prompt
    #[arg(long, value_name = "N", default_value_t = 1)]
    num_samples: usize,
    /// Random seed of sampling
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u32,
    /// Print one JSON object per response: {"prompt","text","token_ids","finish_reason"}
    #[arg(long)]
    json: bool,
    /// Write these JSON lines to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// The prompts of `oaif generate`.
#[derive(Debug, PartialEq)]
pub(crate) enum Prompts {
    Text(String),
    /// One prompt, to be read from standard input.
    StandardInput,
    File(PathBuf, Columns),
}

/// `oaif generate`, checked.
#[derive(Debug)]
pub(crate) struct GeneratePlan {
    pub policy: PolicyFiles,
    pub prompts: Prompts,
    /// Whether prompts are user messages.
    pub chat: bool,
    /// The system message.
    pub system: Option<String>,
    pub sampling: SamplingPlan,
    pub num_samples: usize,
    pub seed: u32,
    /// JSON lines instead of text; always true with `output`.
    pub json: bool,
    /// `None`: standard output.
    pub output: Option<PathBuf>,
    pub base_dtype: Option<FrozenFormat>,
    pub gpu: GpuPlan,
}

impl GenerateArgs {
    pub fn plan(mut self) -> Result<GeneratePlan> {
        let prompts = match (self.prompt, self.prompts) {
            (Some(text), _) if text == "-" => Prompts::StandardInput,
            (Some(text), _) => Prompts::Text(text),
            (None, Some(path)) => {
                let columns = Columns { prompt: self.prompt_column, ..Columns::default() };
                Prompts::File(input_file("--prompts", &path)?, columns)
            }
            (None, None) => {
                let why = "no prompt is given: use --prompt TEXT or --prompts FILE";
                return Err(Error::config("--prompt", why));
            }
        };
        Ok(GeneratePlan {
            policy: self.policy.plan()?,
            prompts,
            chat: self.chat,
            system: self.system,
            sampling: self.sampling.plan(1.0, 64)?,
            num_samples: positive("--num-samples", self.num_samples)?,
            seed: self.seed,
            json: self.json || self.output.is_some(),
            output: optional_output(self.output)?,
            base_dtype: self.base_dtype.plan(),
            gpu: self.gpu.plan(false),
        })
    }
}

impl Fetch for GeneratePlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        self.policy.inputs("--model", "--adapter")
    }
}
