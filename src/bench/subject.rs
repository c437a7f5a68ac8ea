//! The model that steps are timed on, random or from a folder.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::shape::Shape;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::Gpu;
use crate::model::architecture::Projection;
use crate::model::{Architecture, Model, ModelConfig, Weights};

/// A model and the batch of its steps.
pub struct Subject {
    pub(super) gpu: Gpu,
    pub(super) model: Model,
    pub(super) sequences: usize,
    pub(super) length: usize,
    /// Where it was loaded from.
    dir: Option<PathBuf>,
}

impl Subject {
    /// A random model of this shape.
    pub fn random(gpu: &Gpu, shape: &Shape) -> Result<Subject> {
        let model = Model::random(gpu, shape.config(), true, 1)?;
        let (sequences, length) = (shape.sequences, shape.length);
        Ok(Subject { gpu: gpu.clone(), model, sequences, length, dir: None })
    }

    /// The model in a folder, all its weights to be trained, with 8 sequences of 128 tokens.
    pub fn load(gpu: &Gpu, dir: &Path) -> Result<Subject> {
        let model = Model::load(gpu, dir, true)?;
        let length = model.architecture().context.min(128);
        Ok(Subject { gpu: gpu.clone(), model, sequences: 8, length, dir: Some(dir.to_owned()) })
    }

    /// The model's sizes.
    pub(super) fn label(&self) -> String {
        let a = self.model.architecture();
        let (c, f, l, h, k, v) = (a.hidden, a.feed_forward_size, a.layers, a.heads, a.kv_heads, a.vocab);
        format!("C {c} F {f} L {l} H {h} K {k} V {v}")
    }

    /// Floating-point operations of a forward pass: matrix products over `rows`, attention of `keys` pairs of a query
    /// and a key, the head over `targets`.
    pub(super) fn forward_flops(&self, rows: f64, keys: f64, targets: f64) -> f64 {
        let a = self.model.architecture();
        let elements = |p: Projection| {
            let (outputs, inputs) = a.projection_shape(p);
            (outputs * inputs) as f64
        };
        let projections: f64 = Projection::ALL.into_iter().map(elements).sum();
        // Scores and their product with the values.
        let attention = 4.0 * (a.heads * a.head_dim) as f64 * keys;
        a.layers as f64 * (2.0 * rows * projections + attention) + 2.0 * targets * (a.vocab * a.hidden) as f64
    }

    /// Launches that a layer more costs in a plan of `launches`.
    pub(super) fn launches_per_layer(
        &self,
        launches: impl Fn(&Gpu, &Model) -> Result<usize>,
    ) -> Result<usize> {
        let gpu = self.gpu.measuring();
        let of_layers = |num_layers| {
            let config = ModelConfig { num_layers, ..self.model.config().clone() };
            let weights = Weights::trained(&gpu, &Architecture::llama(&config).weights())?;
            launches(&gpu, &Model::new(&gpu, config, weights)?)
        };
        Ok(of_layers(2)? - of_layers(1)?)
    }

    /// A folder with the model's tokenizer: its own, or a new one that lasts as long as the result.
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

/// A model's folder, see [`Subject::folder`].
pub(super) struct Folder {
    pub path: PathBuf,
    /// Removes a new one.
    _new: Option<TempDir>,
}

/// `size` words without a meaning.
fn tokenizer(size: usize) -> Value {
    let word = |id: usize| (if id == 0 { "<unk>".to_owned() } else { format!("w{id}") }, json!(id));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": (0..size).map(word).collect::<Map<_, _>>(), "unk_token": "<unk>"},
    })
}

/// A folder among the system's temporary ones, removed when it is dropped.
pub(super) fn temporary() -> Result<TempDir> {
    TempDir::with_prefix("oaif-bench-").map_err(Error::io("create", "a temporary folder"))
}
