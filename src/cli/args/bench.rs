//! `oaif bench`.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::gpu::{BaseDtypeArgs, GpuArgs, GpuPlan};
use super::paths::{input_file, model_dir};
use super::{ensure, positive, unusable};
use crate::bench::{Batch, Held, SEQUENCES, Shape, Source, Sweep};
use crate::cli::fetch::{Fetch, Input, What};
use crate::error::{Error, Result};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Every kernel, and matrix products of common shapes
    Kernels,
    /// The parts of a training pass: forward, loss, backward
    Passes,
    /// Forward and backward passes, scoring, optimiser updates
    Step,
    /// Prompt processing
    Prefill,
    /// Decoding of several sequences in parallel, in tokens per second
    Decode,
    /// Complete online training steps, with their phases
    Align,
}

/// The format of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A table to read in the terminal
    Table,
    /// JSON lines, which --compare reads
    Json,
    /// One line per case, each with the GPU and the versions
    Csv,
    /// Markdown tables
    Markdown,
}

impl ValueEnum for Sweep {
    fn value_variants<'a>() -> &'a [Sweep] {
        &[Sweep::Tokens, Sweep::Context, Sweep::Sharing]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Sweep::Tokens => PossibleValue::new("tokens").help("The tokens of a step"),
            Sweep::Context => PossibleValue::new("context").help("The context length"),
            Sweep::Sharing => PossibleValue::new("sharing").help("Shared and repeated prompts"),
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Suites to run, one or several [default: all]
    #[arg(value_name = "WHAT")]
    suites: Vec<Suite>,
    /// Run only the cases with TEXT in their name or the name of their suite
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Format of the results
    #[arg(long, value_name = "FORM", default_value = "table")]
    format: Form,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// JSON lines of an earlier benchmark to compare with: prints the ratio of times for each case
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Number of measurements per case; the median, minimum and maximum are printed
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Llama model with random weights and the sizes of stories260k, c192, smollm2-135m, smollm2-360m, qwen3-0.6b, llama-3.2-1b
    /// or gemma-3-1b, or the sizes given as in c=576,f=1536,l=30,h=9,k=3,d=64,v=49152 [default: stories260k]
    #[arg(long, value_name = "NAME|SIZES", conflicts_with = "model")]
    shape: Option<String>,
    /// Number of layers, instead of that of --shape
    #[arg(long, value_name = "N", conflicts_with = "model")]
    layers: Option<usize>,
    /// Model to measure instead of --shape: a folder, a GGUF file, or ORG/NAME[@REVISION] on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: Option<PathBuf>,
    /// passes, step: batch sizes, as sequences x tokens, such as 1x128,8x512 [default: passes: 1x128; step: depends on the
    /// model]
    #[arg(long, value_name = "SxL", value_delimiter = ',')]
    batch: Vec<String>,
    /// prefill: prompt lengths in tokens [default: 128,512]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    prefill: Vec<usize>,
    /// decode: context lengths in tokens at which decoding starts [default: none]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    decode: Vec<usize>,
    /// decode: numbers of parallel sequences [default: 1,16,64]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    sequences: Vec<usize>,
    /// Train a LoRA adapter of this rank on frozen weights, instead of all weights
    #[arg(long, value_name = "R")]
    lora_r: Option<usize>,
    /// step: measure a series instead
    #[arg(long, value_name = "SERIES")]
    sweep: Option<Sweep>,
    /// align: model of a likelihood judge, a folder or a name [default: a rule, the longer response wins]
    #[arg(long, value_name = "DIR|NAME")]
    judge_model: Option<PathBuf>,
    #[command(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// `oaif bench`, checked.
#[derive(Debug)]
pub(crate) struct BenchPlan {
    /// In the order of [`Suite`], each once.
    pub suites: Vec<Suite>,
    /// In lower case; empty for all cases.
    pub filter: String,
    pub form: Form,
    pub compare: Option<PathBuf>,
    pub runs: usize,
    pub model: Source,
    /// Empty for each suite's default.
    pub batches: Vec<Batch>,
    pub prefill: Vec<usize>,
    pub decode: Option<Vec<usize>>,
    pub sequences: Vec<usize>,
    /// The weights in suites that train.
    pub trained: Held,
    /// The weights in suites that do not train.
    pub sampled: Held,
    pub sweep: Option<Sweep>,
    /// The model of the likelihood judge.
    pub judge_model: Option<PathBuf>,
    pub gpu: GpuPlan,
}

impl Fetch for BenchPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        let model = match &mut self.model {
            Source::Folder(path) => Some(Input::new("--model", What::Model, path)),
            Source::Random(_) => None,
        };
        let judge = self.judge_model.as_mut();
        let judge = judge.map(|path| Input::new("--judge-model", What::Model, path));
        [model, judge].into_iter().flatten().collect()
    }
}

/// The default prompt lengths of `prefill`.
const PREFILL: [usize; 2] = [128, 512];

impl BenchArgs {
    pub fn plan(self) -> Result<BenchPlan> {
        self.check_owners()?;
        let model = match &self.model {
            Some(dir) => Source::Folder(model_dir("--model", dir)?),
            None => {
                let shape = Shape::parse(self.shape.as_deref().unwrap_or(Shape::names()[0]))?;
                let shape = match self.layers {
                    Some(layers) => shape.with_layers(positive("--layers", layers)?),
                    None => shape,
                };
                shape.config()?;
                Source::Random(shape)
            }
        };
        let batch = |text: &String| match Batch::parse(text) {
            Some(batch) => Ok(batch),
            None => unusable("--batch", text, "sequences by tokens, such as 8x512"),
        };
        let numbers = |flag: &str, given: &[usize], usual: &[usize]| {
            let chosen = if given.is_empty() { usual } else { given };
            chosen.iter().map(|n| positive(flag, *n)).collect::<Result<Vec<_>>>()
        };
        let format = self.base_dtype.plan();
        let lora = self.lora_r.map(|rank| positive("--lora-r", rank)).transpose()?;
        let lora = lora.map(|rank| Held::Lora { rank, format });
        Ok(BenchPlan {
            suites: self.suites(),
            filter: self.filter.unwrap_or_default().to_lowercase(),
            form: if self.json { Form::Json } else { self.format },
            compare: self.compare.as_ref().map(|path| input_file("--compare", path)).transpose()?,
            runs: positive("--runs", self.runs)?,
            model,
            batches: self.batch.iter().map(batch).collect::<Result<_>>()?,
            prefill: numbers("--prefill", &self.prefill, &PREFILL)?,
            decode: match self.decode.is_empty() {
                true => None,
                false => Some(numbers("--decode", &self.decode, &[])?),
            },
            sequences: numbers("--sequences", &self.sequences, &SEQUENCES)?,
            trained: lora.unwrap_or(Held::Trained),
            sampled: lora.unwrap_or(Held::Frozen(format)),
            sweep: self.sweep,
            judge_model: self.judge_model.as_ref().map(|dir| model_dir("--judge-model", dir)).transpose()?,
            gpu: self.gpu.plan(false),
        })
    }

    fn suites(&self) -> Vec<Suite> {
        let all = Suite::value_variants().iter().copied();
        all.filter(|suite| self.suites.is_empty() || self.suites.contains(suite)).collect()
    }

    /// Refuses flags that belong to none of the chosen suites.
    fn check_owners(&self) -> Result<()> {
        use Suite::{Align, Decode, Passes, Prefill, Step};
        let only = |flag: &str, given: bool, owners: &[Suite], wanted: &str| {
            let of_use = self.suites().iter().any(|suite| owners.contains(suite));
            ensure(
                !given || of_use,
                flag,
                "this flag",
                &format!("for these suites: it belongs to oaif bench {wanted}"),
            )
        };
        let models = [Passes, Step, Prefill, Decode, Align];
        let wanted = "passes, step, prefill, decode and align";
        only("--shape", self.shape.is_some(), &models, wanted)?;
        only("--layers", self.layers.is_some(), &models, wanted)?;
        only("--model", self.model.is_some(), &models, wanted)?;
        only("--lora-r", self.lora_r.is_some(), &models, wanted)?;
        only("--batch", !self.batch.is_empty(), &[Passes, Step], "passes and step")?;
        only("--prefill", !self.prefill.is_empty(), &[Prefill], "prefill")?;
        only("--decode", !self.decode.is_empty(), &[Decode], "decode")?;
        only("--sequences", !self.sequences.is_empty(), &[Decode], "decode")?;
        only("--judge-model", self.judge_model.is_some(), &[Align], "align")?;
        let held = if self.lora_r.is_some() { &models[..] } else { &[Prefill, Decode] };
        only(
            "--base-dtype",
            self.base_dtype.plan().is_some(),
            held,
            "prefill and decode, to all with --lora-r",
        )?;
        let alone = self.suites == [Step] || self.sweep.is_none();
        ensure(alone, "--sweep", "this flag", "for these suites: it belongs to oaif bench step")?;
        match self.sweep.is_some() && !self.batch.is_empty() {
            true => Err(Error::config("--sweep", "has its own batch sizes: leave out --batch")),
            false => Ok(()),
        }
    }
}
