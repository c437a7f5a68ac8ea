//! The model that steps are timed with, random or from a folder.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::shape::{Batch, Shape};
use crate::Wait;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::{Category, Gpu};
use crate::model::names::Projection;
use crate::model::{FloatFormat, FrozenFormat, LoraConfig, LoraTargets, Model, ModelConfig, Weights};
use crate::reference::uniform;

/// The source of a model.
#[derive(Clone, Debug)]
pub enum Source {
    /// Random weights.
    Random(Shape),
    /// The folder of a model.
    Folder(PathBuf),
}

/// How a model's weights are stored. A format of `None` is that of the model's files, or f32 for a random model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// All trained, in f32, with gradients.
    Trained,
    /// All frozen.
    Frozen(Option<FrozenFormat>),
    /// Frozen, with a new LoRA adapter on every projection.
    Lora {
        /// R.
        rank: usize,
        /// The format of the frozen weights.
        format: Option<FrozenFormat>,
    },
}

impl Source {
    /// Returns the default batch of its steps.
    ///
    /// # Errors
    /// Errors of a folder's `config.json`.
    pub fn batch(&self) -> Result<Batch> {
        match self {
            Source::Random(shape) => Ok(shape.batch),
            Source::Folder(_) => {
                Ok(Batch { sequences: 8, length: self.config()?.architecture.context.min(128) })
            }
        }
    }

    /// Returns its configuration.
    ///
    /// # Errors
    /// [`Error::Config`] for invalid sizes, and errors of a folder's `config.json`.
    pub fn config(&self) -> Result<ModelConfig> {
        match self {
            Source::Random(shape) => shape.config(),
            Source::Folder(dir) => ModelConfig::load(dir),
        }
    }

    fn name(&self) -> String {
        match self {
            Source::Random(shape) => shape.name.clone(),
            Source::Folder(dir) => dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned(),
        }
    }
}

/// A model on the GPU, ready to be timed.
pub struct Subject {
    pub(super) gpu: Gpu,
    pub(super) model: Model,
    pub(super) held: Held,
    /// The name for users.
    pub(super) name: String,
    /// How its weights are stored, for display.
    pub(super) weights: String,
    /// The folder it was loaded from.
    dir: Option<PathBuf>,
}

impl Subject {
    /// Loads or creates the model.
    ///
    /// # Errors
    /// Errors of the model's files; memory errors.
    pub fn new(gpu: &Gpu, source: &Source, held: Held) -> Result<Subject> {
        let format = held.format(source)?;
        let base = match (source, held) {
            (Source::Folder(dir), Held::Trained) => Model::load(gpu, dir, true).wait()?,
            (Source::Folder(dir), _) => Model::load_frozen(gpu, dir, Some(format)).wait()?,
            (Source::Random(shape), _) => random(gpu, shape.config()?, held, format)?,
        };
        let weights = match held {
            Held::Trained => "float32, all trained".into(),
            Held::Frozen(_) => format!("{}, frozen", format.name()),
            Held::Lora { rank, .. } => format!("{}, LoRA of rank {rank}", format.name()),
        };
        let dir = match source {
            Source::Folder(dir) => Some(dir.clone()),
            Source::Random(_) => None,
        };
        let (gpu, model) = (gpu.clone(), held.adapted(base)?);
        Ok(Subject { gpu, model, held, name: source.name(), weights, dir })
    }

    /// Returns name, sizes, and how the weights are stored, for display.
    pub fn about(&self) -> String {
        format!("{} ({}), {}", self.name, self.label(), self.weights)
    }

    /// Returns how its weights are stored.
    pub fn held(&self) -> Held {
        self.held
    }

    /// Returns the model's sizes.
    pub(super) fn label(&self) -> String {
        let a = self.model.architecture();
        let (c, f, l, h, k, d, v) =
            (a.hidden, a.feed_forward_size, a.layers, a.heads, a.kv_heads, a.head_dim, a.vocab);
        format!("C {c} F {f} L {l} H {h} K {k} D {d} V {v}")
    }

    /// Returns the floating-point operations of a forward pass: matrix products over `rows`, attention over `keys`
    /// pairs of query and key, the output head over `targets`.
    pub(super) fn forward_flops(&self, rows: f64, keys: f64, targets: f64) -> Flops {
        let a = self.model.architecture();
        let elements = |p: Projection| {
            let (outputs, inputs) = a.projection_shape(p);
            (outputs * inputs) as f64
        };
        let projections: f64 = a.projections().map(elements).sum();
        let adapter: usize = match self.model.adapter() {
            None => 0,
            Some(adapter) => adapter.weights.iter().map(|weight| weight.elements()).sum(),
        };
        Flops {
            base: a.layers as f64 * 2.0 * rows * projections + 2.0 * targets * (a.vocab * a.hidden) as f64,
            // Scores, and their product with the values.
            attention: a.layers as f64 * 4.0 * (a.heads * a.head_dim) as f64 * keys,
            adapter: 2.0 * rows * adapter as f64,
            frozen: self.model.adapter().is_some(),
        }
    }

    /// Returns the launches per additional layer in a plan of `launches`.
    pub(super) fn launches_per_layer(
        &self,
        launches: impl Fn(&Gpu, &Model) -> Result<usize>,
    ) -> Result<usize> {
        let gpu = self.gpu.measuring();
        let of_layers = |num_layers| {
            let mut config = self.model.config().clone();
            config.architecture = config.architecture.with_layers(num_layers);
            let weights = allocate(&gpu, &config, self.held, FloatFormat::F32.into())?;
            launches(&gpu, &self.held.adapted(Model::new(&gpu, config, weights)?)?)
        };
        Ok(of_layers(2)? - of_layers(1)?)
    }

    /// Returns a folder with the model's tokenizer: its own, or a new one that is deleted with the result.
    pub(super) fn folder(&self) -> Result<Folder> {
        match &self.dir {
            Some(dir) => Ok(Folder { path: dir.clone(), _new: None }),
            None => {
                let new = temporary()?;
                self.model.config().save(new.path())?;
                let tokenizer = tokenizer(self.model.architecture().vocab).to_string();
                files::write_atomic(&new.path().join("tokenizer.json"), tokenizer.as_bytes())?;
                Ok(Folder { path: new.path().to_owned(), _new: Some(new) })
            }
        }
    }
}

impl Held {
    /// Returns the adapter of LoRA training, as `--lora-r` creates it.
    pub(super) fn lora(self) -> Option<LoraConfig> {
        let Held::Lora { rank, .. } = self else { return None };
        let targets = LoraTargets::AllLinear;
        Some(LoraConfig { rank, alpha: 2.0 * rank as f32, rank_stabilised: false, targets })
    }

    fn format(self, source: &Source) -> Result<FrozenFormat> {
        match (self, source) {
            (Held::Trained, _) => Ok(FloatFormat::F32.into()),
            (Held::Frozen(Some(format)) | Held::Lora { format: Some(format), .. }, _) => Ok(format),
            (_, Source::Folder(dir)) => FrozenFormat::of_model(dir),
            (_, Source::Random(_)) => Ok(FloatFormat::F32.into()),
        }
    }

    fn adapted(self, base: Model) -> Result<Model> {
        self.lora().map_or(Ok(base.clone()), |config| base.add_adapter(config, 1))
    }
}

fn allocate(gpu: &Gpu, config: &ModelConfig, held: Held, format: FrozenFormat) -> Result<Weights> {
    let specs = config.architecture.weights();
    match held {
        Held::Trained => Weights::trained(gpu, &specs),
        _ => Weights::frozen(gpu, &specs, format),
    }
}

/// Elements in the pool that random weights are slices of.
const POOL: usize = (1 << 21) + 4099;
const SLICE: usize = 1 << 20;

/// Creates a model of random weights: normal with standard deviation 0.02, norms 1. Weights are slices of one pool of
/// numbers: a billion draws would take minutes, and the timing does not depend on them.
fn random(gpu: &Gpu, config: ModelConfig, held: Held, format: FrozenFormat) -> Result<Model> {
    let weights = allocate(gpu, &config, held, format)?;
    let draw = |i: usize| {
        let [u, v] = [0, 1].map(|j| uniform(1, 0, j, i as u32));
        (0.02 * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    };
    let pool: Vec<f32> = (0..POOL).map(draw).collect();
    let mark = gpu.buffer("upload mark", Category::Workspace, 4)?.region();
    let mut from = 0;
    for spec in config.architecture.weights() {
        let [rows, cols] = spec.shape[..] else {
            weights.upload(&spec.name, &vec![1.0; spec.shape[0]])?;
            continue;
        };
        if cols > SLICE {
            return Err(Error::config(
                "shape",
                format!("has rows of {cols} elements: at most {SLICE} are supported"),
            ));
        }
        let step = SLICE / cols;
        for first in (0..rows).step_by(step) {
            let elements = step.min(rows - first) * cols;
            weights.upload_rows(&spec.name, first, &pool[from..from + elements])?;
            from = (from + elements / 2 + 7919) % (POOL - SLICE);
        }
        // Uploads stay in host memory until the next submit.
        gpu.download::<u32>(&mark).wait()?;
    }
    Model::new(gpu, config, weights)
}

/// Floating-point operations of a forward pass, by their cost in the backward pass.
#[derive(Clone, Copy)]
pub(super) struct Flops {
    /// Products with the base weights.
    base: f64,
    attention: f64,
    /// Products with the adapter's weights.
    adapter: f64,
    /// Whether the base is frozen.
    frozen: bool,
}

impl Flops {
    pub fn forward(self) -> f64 {
        self.base + self.attention + self.adapter
    }

    /// Forward and backward: a product has two gradients, one if its weight is frozen.
    pub fn training(self) -> f64 {
        let base = if self.frozen { 2.0 } else { 3.0 };
        base * self.base + 3.0 * (self.attention + self.adapter)
    }
}

/// A model's folder, see [`Subject::folder`].
pub(super) struct Folder {
    pub path: PathBuf,
    /// Deletes the folder if it is new.
    _new: Option<TempDir>,
}

/// A vocabulary of `size` meaningless words.
fn tokenizer(size: usize) -> Value {
    let word = |id: usize| (if id == 0 { "<unk>".to_owned() } else { format!("w{id}") }, json!(id));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": (0..size).map(word).collect::<Map<_, _>>(), "unk_token": "<unk>"},
    })
}

/// Creates a folder in the system's temporary folder, deleted when dropped.
pub(super) fn temporary() -> Result<TempDir> {
    TempDir::with_prefix("oaif-bench-").map_err(Error::io("create", "a temporary folder"))
}
