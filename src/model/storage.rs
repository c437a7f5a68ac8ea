//! Models and adapters from and to folders in the Hugging Face and PEFT layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;

use super::architecture::{Architecture, EMBEDDING, WeightSpec};
use super::config::ModelConfig;
use super::lora::LoraConfig;
use super::safetensors_io::{MODEL_FILE, TensorFiles, TensorSpec, write_atomic};
use super::weights::{Weight, Weights};
use super::{Adapter, Model};
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::{Arena, Category, Format, Gpu, Live, Plan, PlanOptions, Recorder, Region};
use crate::ops;
use crate::reference::uniform;

/// The adapter's weights, in PEFT's layout.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// The adapter's shape, in PEFT's layout.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Files that a model folder needs beside its weights; saving copies those that are there.
const COMPANIONS: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// How weights are stored: in files, and on the device where they are frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum FloatFormat {
    /// As computed.
    #[default]
    #[serde(rename = "float32")]
    F32,
    /// Half precision, rounded to nearest.
    #[serde(rename = "float16")]
    F16,
    /// Brain floats, rounded to nearest.
    #[serde(rename = "bfloat16")]
    Bf16,
}

const FORMATS: [(FloatFormat, Dtype, &str, &str); 3] = [
    (FloatFormat::F32, Dtype::F32, "float32", "f32"),
    (FloatFormat::F16, Dtype::F16, "float16", "f16"),
    (FloatFormat::Bf16, Dtype::BF16, "bfloat16", "bf16"),
];

impl FloatFormat {
    /// By its name in `config.json` or the short one: `float32` or `f32`, and so on.
    pub fn parse(name: &str) -> Option<FloatFormat> {
        FORMATS.iter().find(|(_, _, long, short)| [*long, *short].contains(&name)).map(|f| f.0)
    }

    /// The format that the matrices of the model in `dir` are all stored in; f32 where they are not of one format.
    /// Where the weights are not there, what `config.json` says of them.
    pub fn of_model(dir: &Path) -> Result<FloatFormat> {
        let format = |dtype: Dtype| FORMATS.iter().find(|f| f.1 == dtype).map_or(FloatFormat::F32, |f| f.0);
        if TensorFiles::are_in(dir) {
            let found = TensorFiles::open(dir)?;
            let matrices = found.names().filter_map(|name| found.info(name)).filter(|t| t.shape.len() == 2);
            let mut formats = matrices.map(|tensor| format(tensor.dtype));
            let first = formats.next().unwrap_or_default();
            return Ok(if formats.all(|f| f == first) { first } else { FloatFormat::F32 });
        }
        let raw = ModelConfig::load(dir)?.raw;
        let stated = raw["dtype"].as_str().or(raw["torch_dtype"].as_str());
        Ok(stated.and_then(FloatFormat::parse).unwrap_or_default())
    }

    fn row(self) -> &'static (FloatFormat, Dtype, &'static str, &'static str) {
        FORMATS.iter().find(|f| f.0 == self).expect("every format has a row")
    }

    fn dtype(self) -> Dtype {
        self.row().1
    }

    /// What `config.json` calls it.
    pub fn name(self) -> &'static str {
        self.row().2
    }
}

/// Rows read from disk at a time.
const READ_BYTES: usize = 64 << 20;

impl Model {
    /// Loads a model folder: frozen, held in the file's own format, or with `train` ready for full fine-tuning, which
    /// is in f32. A measuring `Gpu` reads no weights, and `config.json` is all that it needs.
    ///
    /// # Errors
    /// A missing or left-over tensor, one of another shape or type, a damaged file: each names file and tensor.
    pub fn load(gpu: &Gpu, dir: &Path, train: bool) -> Result<Model> {
        match train {
            false => Model::load_frozen(gpu, dir, None),
            true => Model::load_into(gpu, dir, |specs| Weights::trained(gpu, specs)),
        }
    }

    /// Loads a model folder, frozen, with its matrices rounded to `format`, or as the files have them.
    ///
    /// # Errors
    /// As [`Model::load`]; [`Error::Config`] for a number that is too large for half precision.
    pub fn load_frozen(gpu: &Gpu, dir: &Path, format: Option<FloatFormat>) -> Result<Model> {
        let format = format.map_or_else(|| FloatFormat::of_model(dir), Ok)?;
        Model::load_into(gpu, dir, |specs| Weights::frozen(gpu, specs, format))
    }

    fn load_into(
        gpu: &Gpu,
        dir: &Path,
        allocate: impl FnOnce(&[WeightSpec]) -> Result<Weights>,
    ) -> Result<Model> {
        let config = ModelConfig::load(dir)?;
        let specs = Architecture::llama(&config).weights();
        let tied = config.tie_word_embeddings;
        if gpu.is_measuring() && !TensorFiles::are_in(dir) {
            return Model::new(gpu, config, allocate(&specs)?);
        }
        let found = TensorFiles::open(dir)?;
        let stored_name = |spec: &WeightSpec| match spec.name.as_str() {
            EMBEDDING => found.embedding_name(tied).to_owned(),
            _ => spec.name.clone(),
        };
        let used: BTreeSet<String> = specs.iter().map(&stored_name).collect();
        let left = found.unused(&used, tied);
        if let Some(first) = left.first() {
            let why = format!(
                "holds {} tensor(s) that {} does not have, such as {first}: is config.json the right one?",
                left.len(),
                config.architecture
            );
            let path = found.info(first).map_or(dir, |tensor| &tensor.path);
            return Err(Error::file(path, why));
        }
        // Before any memory is taken for them.
        for spec in &specs {
            found.check(&stored_name(spec), &spec.shape)?;
        }
        let weights = allocate(&specs)?;
        for spec in specs.iter().filter(|_| !gpu.is_measuring()) {
            read_into(&found, &stored_name(spec), &weights, spec)?;
        }
        Model::new(gpu, config, weights)
    }

    /// A model of `config` with random weights: normal, their standard deviation `config.json`'s `initializer_range`
    /// (0.02 if it has none); norms are 1.
    pub fn random(gpu: &Gpu, config: ModelConfig, train: bool, seed: u32) -> Result<Model> {
        let architecture = Architecture::llama(&config);
        architecture.check()?;
        let specs = architecture.weights();
        let weights = match train {
            true => Weights::trained(gpu, &specs)?,
            false => Weights::frozen(gpu, &specs, FloatFormat::F32)?,
        };
        let deviation = config.raw.get("initializer_range").and_then(|value| value.as_f64()).unwrap_or(0.02);
        for (index, spec) in specs.iter().enumerate().filter(|_| !gpu.is_measuring()) {
            let draw = |i: usize| {
                let [u, v] = [0, 1].map(|j| uniform(seed, index as u32, j, i as u32));
                (deviation * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
            };
            let values: Vec<f32> = match spec.shape.len() {
                1 => vec![1.0; spec.shape[0]],
                _ => (0..spec.shape.iter().product()).map(draw).collect(),
            };
            weights.upload(&spec.name, &values)?;
        }
        Model::new(gpu, config, weights)
    }

    /// A new adapter on this model, drawn from `seed`.
    pub fn add_adapter(&self, config: LoraConfig, seed: u32) -> Result<Model> {
        config.check()?;
        let specs = config.weights(self.architecture());
        let weights = Weights::trained(self.gpu(), &specs)?;
        for (index, spec) in specs.iter().enumerate().filter(|_| !self.gpu().is_measuring()) {
            weights.upload(&spec.name, &LoraConfig::initial(spec, index, seed))?;
        }
        self.with_adapter(Adapter { config, weights })
    }

    /// Loads an adapter folder in PEFT's layout onto this model: frozen, or with `train` to go on training it; in f32.
    /// On a measuring `Gpu` its configuration is all that it needs.
    pub fn load_adapter(&self, dir: &Path, train: bool) -> Result<Model> {
        let path = dir.join(ADAPTER_CONFIG);
        let config =
            LoraConfig::from_json(&files::read_json(&path)?).map_err(|why| Error::file(&path, why))?;
        let specs = config.weights(self.architecture());
        let gpu = self.gpu();
        let allocate = || match train {
            true => Weights::trained(gpu, &specs),
            false => Weights::frozen(gpu, &specs, FloatFormat::F32),
        };
        if gpu.is_measuring() && !dir.join(ADAPTER_FILE).exists() {
            let weights = allocate()?;
            return self.with_adapter(Adapter { config, weights });
        }
        let found = TensorFiles::open_file(&dir.join(ADAPTER_FILE))?;
        let used: BTreeSet<String> = specs.iter().map(|s| s.name.clone()).collect();
        if let Some(first) = found.unused(&used, false).first() {
            let why = format!("holds tensors that its adapter_config.json does not name, such as {first}");
            return Err(Error::file(dir.join(ADAPTER_FILE), why));
        }
        for spec in &specs {
            found.check(&spec.name, &spec.shape)?;
        }
        let weights = allocate()?;
        for spec in specs.iter().filter(|_| !gpu.is_measuring()) {
            read_into(&found, &spec.name, &weights, spec)?;
        }
        self.with_adapter(Adapter { config, weights })
    }

    /// Adds the adapter to the base weights and drops it: W += scale · B A. Every other model that shares the base
    /// changes with it; but where it is held in 16 bits, which would lose most of the adapter, it is copied to f32 first.
    pub fn merge_adapter(&self) -> Result<Model> {
        let Some(adapter) = self.adapter() else { return Ok(self.clone()) };
        if self.base().iter().any(|w| w.format != Format::F32) {
            let base = Arc::new(self.base().frozen_copy(FloatFormat::F32)?);
            return self.with(|state| state.base = base).merge_adapter();
        }
        let mut r = Recorder::new(self.gpu());
        for layer in 0..self.architecture().layers {
            for projection in &adapter.config.targets {
                let w = self.base().bind(&mut r, &format!("{}.weight", projection.module(layer)));
                let [a, b] = LoraConfig::names(*projection, layer);
                let a = adapter.weights.bind(&mut r, &a).whole();
                let b =
                    self.transposed(adapter.weights.get(&b).expect("B beside every A"), &adapter.weights)?;
                let b = r.bind(&b, adapter.config.rank, w.rows, Format::F32);
                ops::merge_low_rank(&mut r, &w, a, b, adapter.config.scale());
            }
        }
        Plan::new(self.gpu(), r, &Arena::new(), PlanOptions::default())?.run(&Live::default())?;
        Ok(self.without_adapter())
    }

    /// A copy of a small matrix with rows and columns exchanged.
    fn transposed(&self, weight: &Weight, weights: &Weights) -> Result<Region> {
        let (rows, cols) = (weight.shape[0], weight.shape[1]);
        let values = weights.download(weight)?;
        let turned: Vec<f32> = (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect();
        Ok(self.gpu().buffer_with("transposed", Category::Workspace, &turned)?.region())
    }

    /// Writes the base weights and `config.json` to `dir`, with the tokenizer's files from `source`.
    pub fn save(&self, dir: &Path, source: Option<&Path>, format: FloatFormat) -> Result<()> {
        files::create_dir_all(dir)?;
        save_weights(self.base(), &dir.join(MODEL_FILE), format)?;
        let mut config = self.config().clone();
        for key in ["torch_dtype", "dtype"] {
            if let Some(dtype) = config.raw.get_mut(key) {
                *dtype = format.name().into();
            }
        }
        config.save(dir)?;
        copy_companions(source, dir)
    }

    /// Writes the adapter to `dir` in PEFT's layout.
    ///
    /// # Errors
    /// [`Error::Config`] for a model without an adapter.
    pub fn save_adapter(&self, dir: &Path, base_model: &str) -> Result<()> {
        let adapter = self.adapter().ok_or_else(|| Error::config("adapter", "is not there to be saved"))?;
        files::create_dir_all(dir)?;
        save_weights(&adapter.weights, &dir.join(ADAPTER_FILE), FloatFormat::F32)?;
        let json =
            serde_json::to_vec_pretty(&adapter.config.to_json(base_model)).expect("JSON of plain values");
        files::write_atomic(&dir.join(ADAPTER_CONFIG), &json)
    }
}

fn copy_companions(source: Option<&Path>, dir: &Path) -> Result<()> {
    let Some(source) = source else { return Ok(()) };
    for name in COMPANIONS {
        let from = source.join(name);
        if from.is_file() && source != dir {
            files::write_atomic(&dir.join(name), &files::read(&from)?)?;
        }
    }
    Ok(())
}

fn read_into(found: &TensorFiles, stored: &str, weights: &Weights, spec: &WeightSpec) -> Result<()> {
    let values = match spec.shape.as_slice() {
        // Large matrices pass through the host in pieces.
        [rows, cols] if rows * cols * 4 > READ_BYTES => {
            let step = (READ_BYTES / (cols * 4)).max(1);
            for first in (0..*rows).step_by(step) {
                let range = first..(first + step).min(*rows);
                weights.upload_rows(&spec.name, first, &found.read_rows_f32(stored, &spec.shape, range)?)?;
            }
            return Ok(());
        }
        shape => found.read_f32(stored, shape)?,
    };
    weights.upload(&spec.name, &values)
}

/// Writes weights, one tensor in memory at a time.
fn save_weights(weights: &Weights, path: &Path, format: FloatFormat) -> Result<()> {
    let spec = |w: &super::weights::Weight| TensorSpec {
        name: w.name.clone(),
        shape: w.shape.clone(),
        dtype: format.dtype(),
    };
    let specs: Vec<TensorSpec> = weights.iter().map(spec).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_atomic(path, specs, &metadata, |spec| {
        weights.download(weights.get(&spec.name).expect("listed above"))
    })
}

/// Reads weights that [`save_weights`] wrote.
pub(crate) fn restore_weights(weights: &Weights, path: &Path) -> Result<()> {
    let found = TensorFiles::open_file(path)?;
    for weight in weights.iter() {
        weights.upload(&weight.name, &found.read_f32(&weight.name, &weight.shape)?)?;
    }
    Ok(())
}
