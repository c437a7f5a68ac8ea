//! Flags of the commands that do not train.

use std::path::PathBuf;

use clap::Args;

use super::gpu::{BaseDtypeArgs, GpuArgs, GpuPlan};
use super::judge::{JudgeArgs, PROTOCOL};
use super::paths::{AdapterArgs, export_dir, input_file, model_dir, output_file};
use super::sampling::{SamplingArgs, SamplingPlan};
use super::{positive, unusable};
use crate::cli::fetch::{Fetch, Input, What};
use crate::data::rows::Columns;
use crate::error::{Error, Result};
use crate::gguf::{self, GgufFormat};
use crate::judge::config::JudgeConfig;
use crate::model::{FloatFormat, FrozenFormat};
use crate::train::run_dir::REPORT;

/// The page that compares runs.
const COMPARISON: &str = "comparison.html";

/// The formats in which `oaif export` stores weights.
const FORMATS: &str = "float32, bfloat16 or float16";

/// `oaif generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Model: a folder, a GGUF file, or ORG/NAME[@REVISION] on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: PathBuf,
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
    adapter: AdapterArgs,
    #[command(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

fn optional_output(path: Option<PathBuf>) -> Result<Option<PathBuf>> {
    path.map(|path| output_file("--output", &path)).transpose()
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
    pub model: PathBuf,
    /// LoRA adapter.
    pub adapter: Option<PathBuf>,
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
            model: model_dir("--model", &self.model)?,
            adapter: self.adapter.plan()?,
            prompts,
            chat: self.chat,
            system: self.system,
            sampling: self.sampling.plan(1.0, 64)?,
            num_samples: positive("--num-samples", self.num_samples)?,
            seed: self.seed,
            json: self.json || self.output.is_some(),
            output: optional_output(self.output)?,
            base_dtype: self.base_dtype.plan()?,
            gpu: self.gpu.plan(false),
        })
    }
}

/// `oaif chat`.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Model: a folder, a GGUF file, or ORG/NAME[@REVISION] on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: PathBuf,
    /// System message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Random seed of sampling
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u32,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// `oaif chat`, checked.
#[derive(Debug)]
pub(crate) struct ChatPlan {
    pub model: PathBuf,
    /// LoRA adapter.
    pub adapter: Option<PathBuf>,
    pub system: Option<String>,
    pub sampling: SamplingPlan,
    pub seed: u32,
    pub base_dtype: Option<FrozenFormat>,
    pub gpu: GpuPlan,
}

impl ChatArgs {
    pub fn plan(mut self) -> Result<ChatPlan> {
        Ok(ChatPlan {
            model: model_dir("--model", &self.model)?,
            adapter: self.adapter.plan()?,
            system: self.system,
            sampling: self.sampling.plan(0.7, 1024)?,
            seed: self.seed,
            base_dtype: self.base_dtype.plan()?,
            gpu: self.gpu.plan(false),
        })
    }
}

/// `oaif score`.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Model: a folder, a GGUF file, or ORG/NAME[@REVISION] on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: PathBuf,
    /// File of {"prompt","completion"} rows; - reads them from standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Output file, with one JSON line per row [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Column of the prompt in --input
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    prompt_column: String,
    /// Column of the completion in --input
    #[arg(long, value_name = "NAME", default_value = "completion")]
    completion_column: String,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// `oaif score`, checked.
#[derive(Debug)]
pub(crate) struct ScorePlan {
    pub model: PathBuf,
    /// LoRA adapter.
    pub adapter: Option<PathBuf>,
    pub input: PathBuf,
    pub columns: Columns,
    /// `None`: standard output.
    pub output: Option<PathBuf>,
    pub base_dtype: Option<FrozenFormat>,
    pub gpu: GpuPlan,
}

impl ScoreArgs {
    pub fn plan(self) -> Result<ScorePlan> {
        let columns =
            Columns { prompt: self.prompt_column, completion: self.completion_column, ..Columns::default() };
        Ok(ScorePlan {
            model: model_dir("--model", &self.model)?,
            adapter: self.adapter.plan()?,
            input: input_file("--input", &self.input)?,
            columns,
            output: optional_output(self.output)?,
            base_dtype: self.base_dtype.plan()?,
            gpu: self.gpu.plan(false),
        })
    }
}

/// `oaif judge`.
#[derive(Debug, Args)]
#[command(after_help = PROTOCOL)]
pub(crate) struct JudgePairsArgs {
    /// File of {"prompt","response_1","response_2"} rows; - reads them from standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Output file, with one JSON line per row [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Column of the prompt in --input
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    prompt_column: String,
    #[command(flatten)]
    judge: JudgeArgs,
    #[command(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// `oaif judge`, checked.
#[derive(Debug)]
pub(crate) struct JudgePlan {
    pub input: PathBuf,
    pub columns: Columns,
    /// `None`: standard output.
    pub output: Option<PathBuf>,
    pub judge: JudgeConfig,
    pub base_dtype: Option<FrozenFormat>,
    pub gpu: GpuPlan,
}

impl JudgePairsArgs {
    pub fn plan(mut self) -> Result<JudgePlan> {
        Ok(JudgePlan {
            input: input_file("--input", &self.input)?,
            columns: Columns { prompt: self.prompt_column, ..Columns::default() },
            output: optional_output(self.output)?,
            judge: self.judge.plan()?,
            base_dtype: self.base_dtype.plan()?,
            gpu: self.gpu.plan(false),
        })
    }
}

/// `oaif export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Model: a folder, a GGUF file, or ORG/NAME[@REVISION] on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: PathBuf,
    /// Output folder, or a file whose name ends in .gguf for a GGUF file
    #[arg(long, value_name = "DIR|FILE.gguf")]
    output: PathBuf,
    /// Format of the exported weights: float32, bfloat16 or float16; in GGUF also q8_0
    #[arg(long, value_name = "FORMAT", default_value = "float32")]
    dtype: String,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// The kind of output, and the format of its weights.
#[derive(Debug, PartialEq)]
pub(crate) enum ExportFormat {
    /// A folder in the Hugging Face format.
    Folder(FloatFormat),
    /// One GGUF file, for llama.cpp and Ollama.
    Gguf(GgufFormat),
}

/// `oaif export`, checked.
#[derive(Debug)]
pub(crate) struct ExportPlan {
    pub model: PathBuf,
    /// LoRA adapter to merge.
    pub adapter: Option<PathBuf>,
    pub output: PathBuf,
    pub format: ExportFormat,
    pub gpu: GpuPlan,
}

impl ExportArgs {
    pub fn plan(self) -> Result<ExportPlan> {
        let format = match gguf::has_gguf_extension(&self.output) {
            true => GgufFormat::parse(&self.dtype).map(ExportFormat::Gguf),
            false => FloatFormat::parse(&self.dtype).map(ExportFormat::Folder),
        };
        let Some(format) = format else {
            let why = match GgufFormat::parse(&self.dtype) {
                Some(_) => format!("{FORMATS} (q8_0 needs an --output that ends in .gguf)"),
                None if gguf::has_gguf_extension(&self.output) => format!("{FORMATS}, or q8_0"),
                None => FORMATS.to_owned(),
            };
            return unusable("--dtype", self.dtype, &why);
        };
        Ok(ExportPlan {
            model: model_dir("--model", &self.model)?,
            adapter: self.adapter.plan()?,
            output: export_dir(self.output)?,
            format,
            gpu: self.gpu.plan(false),
        })
    }
}

/// The inputs of a model with a LoRA adapter.
fn adapted<'a>(model: &'a mut PathBuf, adapter: &'a mut Option<PathBuf>) -> Vec<Input<'a>> {
    let model = Input::new("--model", What::Model, model);
    let adapter = adapter.as_mut().map(|path| Input::new("--adapter", What::Adapter, path));
    [Some(model), adapter].into_iter().flatten().collect()
}

impl Fetch for GeneratePlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        adapted(&mut self.model, &mut self.adapter)
    }
}

impl Fetch for ChatPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        adapted(&mut self.model, &mut self.adapter)
    }
}

impl Fetch for ScorePlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        adapted(&mut self.model, &mut self.adapter)
    }
}

impl Fetch for ExportPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        adapted(&mut self.model, &mut self.adapter)
    }
}

impl Fetch for JudgePlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        let judge = self.judge.model_paths_mut().into_iter();
        judge.map(|path| Input::new("--judge-model", What::Model, path)).collect()
    }
}

/// `oaif models`.
#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Print the results as JSON lines
    #[arg(long)]
    json: bool,
}

/// `oaif models`, checked.
#[derive(Debug)]
pub(crate) struct ModelsPlan {
    pub json: bool,
}

impl ModelsArgs {
    pub fn plan(self) -> ModelsPlan {
        ModelsPlan { json: self.json }
    }
}

/// `oaif report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Run folders: one for its report, several for a page that compares them
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Page to write [default: RUN/report.html; of several runs, comparison.html]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `oaif report`, checked.
#[derive(Debug)]
pub(crate) struct ReportPlan {
    pub runs: Vec<PathBuf>,
    pub output: PathBuf,
    /// Whether the page is the run's own report, which is replaced without a check.
    pub replaces: bool,
}

impl ReportArgs {
    pub fn plan(self) -> Result<ReportPlan> {
        for run in &self.runs {
            if !run.is_dir() {
                let why = format!("{} is not a folder: give the output folder of a run", run.display());
                return Err(Error::config("RUN", why));
            }
        }
        let (output, replaces) = match (self.output, self.runs.as_slice()) {
            (Some(path), _) => (output_file("--output", &path)?, false),
            (None, [run]) => (run.join(REPORT), true),
            (None, _) => (COMPARISON.into(), false),
        };
        Ok(ReportPlan { runs: self.runs, output, replaces })
    }
}

/// `oaif doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print the results as one JSON object
    #[arg(long)]
    json: bool,
    /// List the test of every kernel against the f64 reference
    #[arg(long)]
    kernels: bool,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// `oaif doctor`, checked.
#[derive(Debug)]
pub(crate) struct DoctorPlan {
    pub json: bool,
    pub kernels: bool,
    pub gpu: GpuPlan,
}

impl DoctorArgs {
    pub fn plan(self) -> Result<DoctorPlan> {
        Ok(DoctorPlan { json: self.json, kernels: self.kernels, gpu: self.gpu.plan(false) })
    }
}
/// `oaif completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to print the script for
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `oaif man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Output folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
