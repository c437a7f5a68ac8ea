//! `oaif export`.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::gpu::{GpuArgs, GpuPlan};
use super::paths::export_dir;
use super::policy::{PolicyArgs, PolicyFiles};
use crate::cli::fetch::{Fetch, Input};
use crate::error::{Error, Result};
use crate::gguf::{self, GgufFormat};
use crate::model::FloatFormat;

impl ValueEnum for GgufFormat {
    fn value_variants<'a>() -> &'a [GgufFormat] {
        &[GgufFormat::F32, GgufFormat::Bf16, GgufFormat::F16, GgufFormat::Q8_0]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            GgufFormat::F32 => PossibleValue::new("float32").aliases(["f32", "torch.float32"]),
            GgufFormat::Bf16 => PossibleValue::new("bfloat16").aliases(["bf16", "torch.bfloat16"]),
            GgufFormat::F16 => PossibleValue::new("float16").aliases(["f16", "torch.float16"]),
            GgufFormat::Q8_0 => {
                PossibleValue::new("q8_0").alias("Q8_0").help("8-bit integers with scales, only in GGUF")
            }
        })
    }
}

/// `oaif export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Output folder, or a file whose name ends in .gguf for a GGUF file
    #[arg(long, value_name = "DIR|FILE.gguf")]
    output: PathBuf,
    /// Format of the exported weights
    #[arg(long, value_name = "FORMAT", default_value = "float32")]
    dtype: GgufFormat,
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
    /// The LoRA adapter is merged.
    pub policy: PolicyFiles,
    pub output: PathBuf,
    pub format: ExportFormat,
    pub gpu: GpuPlan,
}

impl ExportArgs {
    pub fn plan(self) -> Result<ExportPlan> {
        let format = match self.dtype {
            format if gguf::has_gguf_extension(&self.output) => ExportFormat::Gguf(format),
            GgufFormat::F32 => ExportFormat::Folder(FloatFormat::F32),
            GgufFormat::Bf16 => ExportFormat::Folder(FloatFormat::Bf16),
            GgufFormat::F16 => ExportFormat::Folder(FloatFormat::F16),
            GgufFormat::Q8_0 => {
                let why = "q8_0 is a format of GGUF: use an --output that ends in .gguf";
                return Err(Error::config("--dtype", why));
            }
        };
        Ok(ExportPlan {
            policy: self.policy.plan()?,
            output: export_dir(self.output)?,
            format,
            gpu: self.gpu.plan(false),
        })
    }
}

impl Fetch for ExportPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        self.policy.inputs("--model", "--adapter")
    }
}
