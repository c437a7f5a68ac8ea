//! `oaif bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::gpu::{BaseDtypeArgs, GpuArgs, GpuPlan};
use super::paths::{input_file, model_dir};
use super::{ensure, positive, unusable};
use crate::bench::{Batch, Held, SEQUENCES, Shape, Source, Sweep};
use crate::cli::fetch::{Fetch, Input, What};
use crate::error::{Error, Result};

/// What can be timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Every kernel, and matrix products of usual shapes
    Kernels,
    /// A training pass by its parts: forward, and loss, and backward
    Passes,
    /// Forward and backward passes, scoring, updates
    Step,
    /// Reading a prompt
    Prefill,
    /// Tokens a second of sequences side by side
    Decode,
    /// Whole online steps with their phases
    Align,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Table,
    /// One JSON object a line, which --compare reads
    Json,
    /// One line a case, with the GPU and the versions in each
    Csv,
    /// Tables of Markdown
    Markdown,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to time, one or several [default: all]
    #[arg(value_name = "WHAT")]
    suites: Vec<Suite>,
    /// Only what has TEXT in its name or its suite's
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// How to print results
    #[arg(long, value_name = "FORM", default_value = "table")]
    format: Form,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// JSON lines of an earlier time: each case's time as a multiple of what it was then
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Measurements of each case, of which the median, the fastest and the slowest are told
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// A model with random weights, by name (stories260k, c192, smollm2-135m, smollm2-360m, qwen3-0.6b, llama-3.2-1b or
    /// gemma-3-1b: all as Llamas of these sizes) or by sizes, as c=576,f=1536,l=30,h=9,k=3,d=64,v=49152 [default:
    /// stories260k]
    #[arg(long, value_name = "NAME|SIZES", conflicts_with = "model")]
    shape: Option<String>,
    /// So many layers rather than the shape's own, which the results say
    #[arg(long, value_name = "N", conflicts_with = "model")]
    layers: Option<usize>,
    /// Folder of a model to time instead, a GGUF file, or ORG/NAME[@REVISION] on the hub
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: Option<PathBuf>,
    /// passes, step: sequences and their tokens, one or several, as 1x128,8x512 [default: passes 1x128, step what suits
    /// the model]
    #[arg(long, value_name = "SxL", value_delimiter = ',')]
    batch: Vec<String>,
    /// prefill: lengths of prompts [default: 128,512]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    prefill: Vec<usize>,
    /// decode: tokens before those that are decoded, one or several [default: none]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    decode: Vec<usize>,
    /// decode: sequences side by side [default: 1,16,64]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    sequences: Vec<usize>,
    /// Train a LoRA adapter of this rank, on frozen weights, rather than all weights
    #[arg(long, value_name = "R")]
    lora_r: Option<usize>,
    /// step: a series instead, over the tokens of a step, the context of a sequence, or prompts shared and repeated
    #[arg(long, value_name = "tokens|context|sharing")]
    sweep: Option<String>,
    /// align: folder of a model that judges by likelihood, or its name [default: the longer response wins]
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
    /// In lower case; empty: everything.
    pub filter: String,
    pub form: Form,
    pub compare: Option<PathBuf>,
    pub runs: usize,
    pub model: Source,
    /// Empty: what each suite chooses.
    pub batches: Vec<Batch>,
    pub prefill: Vec<usize>,
    pub decode: Option<Vec<usize>>,
    pub sequences: Vec<usize>,
    /// Where something is trained.
    pub trained: Held,
    /// Where nothing is.
    pub sampled: Held,
    pub sweep: Option<Sweep>,
    /// Of a model that judges by likelihood.
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

/// Prompts that are read where nothing else is asked for.
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
        let format = self.base_dtype.plan()?;
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
            sweep: self.sweep.as_deref().map(Sweep::named).transpose()?,
            judge_model: self.judge_model.as_ref().map(|dir| model_dir("--judge-model", dir)).transpose()?,
            gpu: self.gpu.plan(false),
        })
    }

    fn suites(&self) -> Vec<Suite> {
        let all = Suite::value_variants().iter().copied();
        all.filter(|suite| self.suites.is_empty() || self.suites.contains(suite)).collect()
    }

    /// Refuses flags that belong to none of the suites that are asked for.
    fn check_owners(&self) -> Result<()> {
        use Suite::{Align, Decode, Passes, Prefill, Step};
        let only = |flag: &str, given: bool, owners: &[Suite], wanted: &str| {
            let of_use = self.suites().iter().any(|suite| owners.contains(suite));
            ensure(
                !given || of_use,
                flag,
                "this flag",
                &format!("of use here: it belongs to oaif bench {wanted}"),
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
            self.base_dtype.plan()?.is_some(),
            held,
            "prefill and decode, to all with --lora-r",
        )?;
        let alone = self.suites == [Step] || self.sweep.is_none();
        ensure(alone, "--sweep", "this flag", "of use here: it belongs to oaif bench step")?;
        match self.sweep.is_some() && !self.batch.is_empty() {
            true => Err(Error::config("--sweep", "has batches of its own: leave --batch out")),
            false => Ok(()),
        }
    }
}
