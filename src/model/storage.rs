//! Models from and to folders in the Hugging Face layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Model;
use super::adapter_storage::{ADAPTER_CONFIG, ADAPTER_FILE};
use super::architecture::{Stored, WeightSpec};
use super::companions::Companions;
use super::config::ModelConfig;
use super::format::{FloatFormat, FrozenFormat};
use super::model_files::ModelFiles;
use super::safetensors_io::{MODEL_FILE, TensorFiles, TensorSpec, write_atomic};
use super::tensor_source::TensorSource;
use super::weights::{Weight, Weights};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::reference::uniform;
use crate::{files, gguf};

impl FrozenFormat {
    /// The format that the matrices of the model in `dir` are all stored in; f32 where they are not of one format.
    /// Where the weights are not there, what `config.json` says of them.
    pub fn of_model(dir: &Path) -> Result<FrozenFormat> {
        if let Some(file) = gguf::file_of(dir)? {
            return gguf::frozen_format(&file);
        }
        if TensorFiles::are_in(dir) {
            let found = TensorFiles::open(dir)?;
            let matrices = found.names().filter_map(|name| found.info(name)).filter(|t| t.shape.len() == 2);
            let mut formats = matrices.map(|tensor| FloatFormat::of(tensor.dtype).unwrap_or_default());
            let first = formats.next().unwrap_or_default();
            return Ok(if formats.all(|f| f == first) { first } else { FloatFormat::F32 }.into());
        }
        let raw = ModelConfig::load(dir)?.raw;
        let stated = raw["dtype"].as_str().or(raw["torch_dtype"].as_str());
        Ok(stated.and_then(FloatFormat::parse).unwrap_or_default().into())
    }
}

/// Rows read from disk at a time.
const READ_BYTES: usize = 64 << 20;

impl Model {
    /// Loads a model folder, or a GGUF file: frozen, held in the file's own format, or with `train` ready for full
    /// fine-tuning, which is in f32. A measuring `Gpu` reads no weights, and `config.json` is all that it needs.
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
    /// As [`Model::load`]; [`Error::Config`] for a number that the format has no room for.
    pub fn load_frozen(gpu: &Gpu, dir: &Path, format: Option<FrozenFormat>) -> Result<Model> {
        let format = format.map_or_else(|| FrozenFormat::of_model(dir), Ok)?;
        Model::load_into(gpu, dir, |specs| Weights::frozen(gpu, specs, format))
    }

    fn load_into(
        gpu: &Gpu,
        dir: &Path,
        allocate: impl FnOnce(&[WeightSpec]) -> Result<Weights>,
    ) -> Result<Model> {
        let mut config = ModelConfig::load(dir)?;
        if dir.join(ADAPTER_CONFIG).exists() {
            let why = format!(
                "holds a LoRA adapter beside the model, which transformers would put on it: move {ADAPTER_CONFIG} and \
                 {ADAPTER_FILE} to a folder of their own, and give that as the adapter"
            );
            return Err(Error::file(dir, why));
        }
        if gpu.is_measuring() && !TensorSource::is_at(dir)? {
            let weights = allocate(&config.architecture.weights())?;
            return Ok(Model::new(gpu, config, weights)?.of_folder(dir));
        }
        let found = ModelFiles::open(dir, &config)?;
        found.settle_head(&mut config)?;
        let specs = config.architecture.weights();
        // Before any memory is taken for them.
        found.check(&specs, &config)?;
        let weights = allocate(&specs)?;
        for spec in specs.iter().filter(|_| !gpu.is_measuring()) {
            let stored = found.stored_name(&spec.name, config.architecture.tied);
            read_into(found.files(), &stored, &weights, &found.files().stored(spec))?;
        }
        Ok(Model::new(gpu, config, weights)?.of_folder(dir))
    }

    /// A model of `config` with random weights: normal, their standard deviation `config.json`'s `initializer_range`
    /// (0.02 if it has none); norms are 1, biases 0.
    pub fn random(gpu: &Gpu, config: ModelConfig, train: bool, seed: u32) -> Result<Model> {
        config.architecture.check()?;
        let specs = config.architecture.weights();
        let weights = match train {
            true => Weights::trained(gpu, &specs)?,
            false => Weights::frozen(gpu, &specs, FloatFormat::F32.into())?,
        };
        let deviation = config.raw.get("initializer_range").and_then(|value| value.as_f64()).unwrap_or(0.02);
        for (index, spec) in specs.iter().enumerate().filter(|_| !gpu.is_measuring()) {
            let draw = |i: usize| {
                let [u, v] = [0, 1].map(|j| uniform(seed, index as u32, j, i as u32));
                (deviation * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
            };
            let values: Vec<f32> = match spec.shape.len() {
                1 => vec![config.architecture.initial(spec); spec.shape[0]],
                _ => (0..spec.shape.iter().product()).map(draw).collect(),
            };
            weights.upload(&spec.name, &values)?;
        }
        Model::new(gpu, config, weights)
    }

    /// Writes the base weights and `config.json` to `dir`, with what else lies in the model's folder `source`: the
    /// tokenizer's files above all. What cannot be written whole leaves no new folder.
    ///
    /// # Errors
    /// [`Error::Config`] for a number that `format` has no room for; [`Error::SelfCheck`] for one that is not finite.
    pub fn save(&self, dir: &Path, source: Option<&Path>, format: FloatFormat) -> Result<()> {
        into_folder(dir, || self.save_into(dir, source, format))
    }

    /// [`Model::save`] into a folder that is there: one that has gone does not come back.
    pub(crate) fn save_into(&self, dir: &Path, source: Option<&Path>, format: FloatFormat) -> Result<()> {
        save_weights(self.base(), &dir.join(MODEL_FILE), format)?;
        let mut config = self.config().clone();
        config.set_dtype(format);
        config.save(dir)?;
        source.map_or(Ok(()), |source| Companions::All.copy(source, dir))
    }
}

/// Creates `dir`, if need be, and fills it; where that fails, a folder that was not there before goes again.
pub(crate) fn into_folder(dir: &Path, fill: impl FnOnce() -> Result<()>) -> Result<()> {
    let new = !dir.exists();
    files::create_dir_all(dir)?;
    let filled = fill();
    if filled.is_err() && new {
        // The first error is the one worth telling.
        let _ = fs::remove_dir_all(dir);
    }
    filled
}

/// Reads a tensor, called `stored` in its file, into the weight of `spec`.
///
/// # Errors
/// [`Error::File`] for a number that is not finite.
pub(super) fn read_into(
    found: &TensorSource,
    stored: &str,
    weights: &Weights,
    spec: &WeightSpec,
) -> Result<()> {
    let check = |values: Vec<f32>| match values.iter().find(|value| !value.is_finite()) {
        None => Ok(values),
        Some(value) => {
            let why = format!("tensor {stored} holds {value}: the file is damaged, get it again");
            Err(Error::file(found.path(stored), why))
        }
    };
    match (spec.stored, spec.shape.as_slice()) {
        // Large matrices pass through the host in pieces.
        (Stored::AsUsed, [rows, cols]) => {
            let step = (READ_BYTES / (cols * 4)).max(1);
            for first in (0..*rows).step_by(step) {
                let rows = first..(first + step).min(*rows);
                let values = check(found.read_rows_f32(stored, &spec.shape, rows)?)?;
                weights.upload_rows(&spec.name, first, &values)?;
            }
            Ok(())
        }
        _ => {
            let values = check(found.read_f32(stored, &spec.stored_shape())?)?;
            weights.upload(&spec.name, &spec.to_used(values))
        }
    }
}

/// Writes weights, one tensor in memory at a time.
pub(super) fn save_weights(weights: &Weights, path: &Path, format: FloatFormat) -> Result<()> {
    let spec = |w: &Weight| TensorSpec { name: w.name.clone(), shape: w.spec().stored_shape(), format };
    let specs: Vec<TensorSpec> = weights.iter().map(spec).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_atomic(path, specs, &metadata, |spec| {
        let weight = weights.get(&spec.name).expect("listed above");
        Ok(weight.spec().to_stored(finite(weights, weight)?))
    })
}

/// The numbers of a weight, to be saved.
///
/// # Errors
/// [`Error::SelfCheck`] for one that is not finite.
pub(crate) fn finite(weights: &Weights, weight: &Weight) -> Result<Vec<f32>> {
    let values = weights.download(weight)?;
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(values),
        Some(value) => Err(Error::SelfCheck(format!(
            "{} holds {value}, so that nothing is saved: lower the learning rate of what trained it",
            weight.name
        ))),
    }
}

/// Reads weights that [`save_weights`] wrote.
pub(crate) fn restore_weights(weights: &Weights, path: &Path) -> Result<()> {
    let found = TensorFiles::open_file(path)?;
    for weight in weights.iter() {
        let values = found.read_f32(&weight.name, &weight.spec().stored_shape())?;
        weights.upload(&weight.name, &weight.spec().to_used(values))?;
    }
    Ok(())
}
