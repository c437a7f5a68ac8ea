//! Models from and to folders in the Hugging Face layout.

use std::collections::BTreeMap;
use std::path::Path;

use super::Model;
use super::adapter_config::AdapterConfig;
use super::adapter_storage::{ADAPTER_CONFIG, ADAPTER_FILE};
use super::architecture::{RATING_HEAD, Stored, WeightSpec};
use super::companions::Companions;
use super::config::ModelConfig;
use super::format::{FloatFormat, FrozenFormat};
use super::model_files::ModelFiles;
use super::safetensors_io::{MODEL_FILE, TensorFiles, TensorSpec, TensorWriter};
use super::tensor_source::TensorSource;
use super::weights::{Weight, Weights};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::reference::uniform;
use crate::task::Slice;
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

/// The standard deviation of new weights, where `config.json` names none.
pub(super) const INITIALIZER_RANGE: f64 = 0.02;

/// Draws from a normal distribution around 0, of a seed and the place of a weight among others.
pub(super) fn normal(seed: u32, index: u32, deviation: f64, elements: usize) -> Vec<f32> {
    let draw = |i: usize| {
        let [u, v] = [0, 1].map(|j| uniform(seed, index, j, i as u32));
        (deviation * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    };
    (0..elements).map(draw).collect()
}

/// Rows read from disk at a time.
const READ_BYTES: usize = 64 << 20;

impl Model {
    /// Loads a model folder, or a GGUF file: frozen, held in the file's own format, or with `train` ready for full
    /// fine-tuning, which is in f32. A measuring `Gpu` reads no weights, and `config.json` is all that it needs.
    ///
    /// # Errors
    /// A missing or left-over tensor, one of another shape or type, a damaged file: each names file and tensor.
    pub async fn load(gpu: &Gpu, dir: &Path, train: bool) -> Result<Model> {
        match train {
            false => Model::load_frozen(gpu, dir, None).await,
            true => Model::load_into(gpu, dir, Role::Writes, |specs| Weights::trained(gpu, specs)).await,
        }
    }

    /// Loads a reward model as `AutoModelForSequenceClassification` saves it, frozen, as [`Model::load_frozen`] does: whole, or
    /// as the adapter in the folder `adapter`, which has its head.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Model::load_adapter`]; [`Error::File`] for a model that writes, without an adapter.
    pub async fn load_reward(
        gpu: &Gpu,
        dir: &Path,
        adapter: Option<&Path>,
        format: Option<FrozenFormat>,
    ) -> Result<Model> {
        let format = format.map_or_else(|| FrozenFormat::of_model(dir), Ok)?;
        match adapter {
            None => {
                Model::load_into(gpu, dir, Role::Rates, |specs| Weights::frozen(gpu, specs, format)).await
            }
            Some(adapter) => {
                let padding = Tokenizer::padding_of(dir)?;
                Model::load_into_reward(gpu, dir, Some(format), padding, 0)
                    .await?
                    .load_adapter(adapter, false)
            }
        }
    }

    /// Whether what lies in these folders rates texts rather than write them.
    ///
    /// # Errors
    /// [`Error::File`] for a configuration that cannot be read.
    pub fn rates(dir: &Path, adapter: Option<&Path>) -> Result<bool> {
        let by_adapter = adapter.map(AdapterConfig::load).transpose()?.is_some_and(|config| config.rates);
        Ok(by_adapter || ModelConfig::load(dir)?.architecture.rates)
    }

    /// Loads a reward model, or a model that writes, whose head is replaced by a new one that rates, drawn from `seed`:
    /// frozen in `format`, or `None` ready for full fine-tuning. `padding` as in [`ModelConfig::padding`], where the model
    /// has none.
    ///
    /// # Errors
    /// As [`Model::load`]; [`Error::Config`] for a family without reward models.
    pub async fn load_into_reward(
        gpu: &Gpu,
        dir: &Path,
        format: Option<FrozenFormat>,
        padding: Option<u32>,
        seed: u32,
    ) -> Result<Model> {
        Model::load_into(gpu, dir, Role::Becomes { padding, seed }, |specs| match format {
            Some(format) => Weights::frozen(gpu, specs, format),
            None => Weights::trained(gpu, specs),
        })
        .await
    }

    /// Loads a model folder, frozen, with its matrices rounded to `format`, or as the files have them.
    ///
    /// # Errors
    /// As [`Model::load`]; [`Error::Config`] for a number that the format has no room for.
    pub async fn load_frozen(gpu: &Gpu, dir: &Path, format: Option<FrozenFormat>) -> Result<Model> {
        let format = format.map_or_else(|| FrozenFormat::of_model(dir), Ok)?;
        Model::load_into(gpu, dir, Role::Writes, |specs| Weights::frozen(gpu, specs, format)).await
    }

    async fn load_into(
        gpu: &Gpu,
        dir: &Path,
        role: Role,
        allocate: impl FnOnce(&[WeightSpec]) -> Result<Weights>,
    ) -> Result<Model> {
        let mut config = ModelConfig::load(dir)?;
        let new_head = role.settle(dir, &mut config)?;
        if files::exists(&dir.join(ADAPTER_CONFIG)) {
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
        let in_files = |spec: &&WeightSpec| new_head.is_none() || spec.name != RATING_HEAD;
        found.check(specs.iter().filter(in_files), &config)?;
        let weights = allocate(&specs)?;
        // A model that is to rate may have been tied.
        let tied = config.architecture.tied || new_head.is_some();
        let mut slice = Slice::begin();
        for spec in specs.iter().filter(|_| !gpu.is_measuring()) {
            slice.give_way().await;
            if let Some(seed) = new_head.filter(|_| spec.name == RATING_HEAD) {
                let head =
                    normal(seed, specs.len() as u32, config.initializer_range(), spec.shape.iter().product());
                weights.upload(&spec.name, &head)?;
                continue;
            }
            let stored = found.stored_name(&spec.name, tied);
            read_into(found.files(), &stored, &weights, &found.files().stored(spec))?;
        }
        Ok(Model::new(gpu, config, weights)?.of_folder(dir))
    }

    /// A model of `config` with random weights: normal, their standard deviation `config.json`'s `initializer_range`
    /// (0.02 if it has none); norms are 1, biases 0.
    pub async fn random(gpu: &Gpu, config: ModelConfig, train: bool, seed: u32) -> Result<Model> {
        config.architecture.check()?;
        let specs = config.architecture.weights();
        let weights = match train {
            true => Weights::trained(gpu, &specs)?,
            false => Weights::frozen(gpu, &specs, FloatFormat::F32.into())?,
        };
        let deviation = config.initializer_range();
        for (index, spec) in specs.iter().enumerate().filter(|_| !gpu.is_measuring()) {
            let values: Vec<f32> = match spec.shape.len() {
                1 => vec![config.architecture.initial(spec); spec.shape[0]],
                _ => normal(seed, index as u32, deviation, spec.shape.iter().product()),
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
    pub async fn save(&self, dir: &Path, source: Option<&Path>, format: FloatFormat) -> Result<()> {
        into_folder(dir, self.save_into(dir, source, format)).await
    }

    /// [`Model::save`] into a folder that is there: one that has gone does not come back.
    pub(crate) async fn save_into(
        &self,
        dir: &Path,
        source: Option<&Path>,
        format: FloatFormat,
    ) -> Result<()> {
        save_weights(self.base(), &dir.join(MODEL_FILE), format).await?;
        let mut config = self.config().clone();
        config.set_dtype(format);
        config.save(dir)?;
        source.map_or(Ok(()), |source| Companions::All.copy(source, dir))
    }
}

/// What a model is loaded for.
#[derive(Clone, Copy)]
enum Role {
    /// Predicts tokens.
    Writes,
    /// Rates texts.
    Rates,
    /// Rates texts from now on: where it has no head for that, with a new one.
    Becomes { padding: Option<u32>, seed: u32 },
}

impl Role {
    /// Refuses what cannot do it; the seed of a new head, where there is to be one.
    fn settle(self, dir: &Path, config: &mut ModelConfig) -> Result<Option<u32>> {
        let rates = config.architecture.rates;
        match (self, rates) {
            (Role::Writes, false) | (Role::Rates | Role::Becomes { .. }, true) => Ok(None),
            (Role::Becomes { padding, seed }, false) => {
                *config = config.clone().into_reward(padding)?;
                Ok(Some(seed))
            }
            (Role::Writes, true) => {
                let why = format!(
                    "is a reward model ({}), which rates texts and writes none: let it judge, or give another model here",
                    config.name
                );
                Err(Error::file(dir, why))
            }
            (Role::Rates, false) => {
                let why = format!(
                    "is no reward model but a {}: train one of it by oaif reward, or give one whose architecture ends in \
                     ForSequenceClassification",
                    config.name
                );
                Err(Error::file(dir, why))
            }
        }
    }
}

/// Creates `dir`, if need be, and fills it; where that fails, a folder that was not there before goes again.
pub(crate) async fn into_folder(dir: &Path, fill: impl Future<Output = Result<()>>) -> Result<()> {
    let new = !files::exists(dir);
    files::create_dir_all(dir)?;
    let filled = fill.await;
    if filled.is_err() && new {
        // The first error is the one worth telling.
        let _ = files::remove(dir);
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
pub(crate) async fn save_weights(weights: &Weights, path: &Path, format: FloatFormat) -> Result<()> {
    let spec = |w: &Weight| TensorSpec { name: w.name.clone(), shape: w.spec().stored_shape(), format };
    let specs: Vec<TensorSpec> = weights.iter().map(spec).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut file = TensorWriter::create(path, specs, &metadata)?;
    while let Some(spec) = file.wants() {
        let weight = weights.get(&spec.name).expect("listed above");
        file.push(&weight.spec().to_stored(finite(weights, weight).await?))?;
    }
    file.finish()
}

/// The numbers of a weight, to be saved.
///
/// # Errors
/// [`Error::SelfCheck`] for one that is not finite.
pub(crate) async fn finite(weights: &Weights, weight: &Weight) -> Result<Vec<f32>> {
    let values = weights.download(weight).await?;
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
