//! Loading models from folders in the Hugging Face layout, and saving them.

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
    /// Returns the format that all matrices of the model in `dir` are stored in, or f32 if they differ. Without
    /// weights, it is the format that `config.json` states.
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

/// Draws numbers from a normal distribution with mean 0. They depend on the seed and on the weight's index only.
pub(super) fn normal(seed: u32, index: u32, deviation: f64, elements: usize) -> Vec<f32> {
    let draw = |i: usize| {
        let [u, v] = [0, 1].map(|j| uniform(seed, index, j, i as u32));
        (deviation * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    };
    (0..elements).map(draw).collect()
}

/// The largest piece of a matrix, in bytes of f32, that is read from disk at a time.
const READ_BYTES: usize = 64 << 20;

impl Model {
    /// Loads a model folder or a GGUF file. Without `train` it is frozen and keeps the format of the file; with `train`
    /// it is in f32, ready for full fine-tuning. With a measuring `Gpu` no weights are read, and `config.json` is
    /// enough.
    ///
    /// # Errors
    /// A tensor that is missing, unexpected, or of another shape or type; a damaged file. Each error names the file and
    /// the tensor.
    pub async fn load(gpu: &Gpu, dir: &Path, train: bool) -> Result<Model> {
        match train {
            false => Model::load_frozen(gpu, dir, None).await,
            true => Model::load_into(gpu, dir, Role::Writes, |specs| Weights::trained(gpu, specs)).await,
        }
    }

    /// Loads a frozen reward model as `AutoModelForSequenceClassification` saves it, with formats as in
    /// [`Model::load_frozen`]: either a whole model, or a base model with the adapter in the folder `adapter`, which
    /// holds the head.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Model::load_adapter`]; [`Error::File`] for a causal language model without an adapter.
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

    /// Whether these folders hold a reward model instead of a causal language model.
    ///
    /// # Errors
    /// [`Error::File`] for a configuration that cannot be read.
    pub fn rates(dir: &Path, adapter: Option<&Path>) -> Result<bool> {
        let by_adapter = adapter.map(AdapterConfig::load).transpose()?.is_some_and(|config| config.rates);
        Ok(by_adapter || ModelConfig::load(dir)?.architecture.rates)
    }

    /// Loads a reward model, or a causal language model whose head is replaced by a new rating head drawn from `seed`.
    /// It is frozen in `format`, or ready for full fine-tuning if that is `None`. `padding` is used as
    /// [`ModelConfig::padding`] where the model has none.
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

    /// Loads a frozen model folder. Its matrices are rounded to `format`; `None` keeps the format of the files.
    ///
    /// # Errors
    /// As [`Model::load`]; [`Error::Config`] for a number outside the range of the format.
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
                "holds a LoRA adapter beside the model, which transformers would apply to it: move {ADAPTER_CONFIG} and \
                 {ADAPTER_FILE} to a folder of their own and give that folder as the adapter"
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
        // Checked before any memory is allocated for them.
        let in_files = |spec: &&WeightSpec| new_head.is_none() || spec.name != RATING_HEAD;
        found.check(specs.iter().filter(in_files), &config)?;
        let weights = allocate(&specs)?;
        // A language model that becomes a reward model may have had a tied head.
        let tied = config.architecture.tied || new_head.is_some();
        let mut slice = Slice::begin();
        for spec in specs.iter().filter(|_| !gpu.is_measuring()) {
            slice.yield_now().await;
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

    /// Creates a model of `config` with random weights: normally distributed, with `config.json`'s `initializer_range`
    /// as the standard deviation (0.02 if it has none); norm weights are 1, biases 0.
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

    /// Writes the base weights and `config.json` to `dir`, and copies the other files of the model's folder `source`,
    /// such as the tokenizer's. If a write fails, a newly created folder is removed.
    ///
    /// # Errors
    /// [`Error::Config`] for a number outside the range of `format`; [`Error::SelfCheck`] for one that is not finite.
    pub async fn save(&self, dir: &Path, source: Option<&Path>, format: FloatFormat) -> Result<()> {
        into_folder(dir, self.save_into(dir, source, format)).await
    }

    /// [`Model::save`] into an existing folder; it is not created again if it has been removed.
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

/// The purpose that a model is loaded for.
#[derive(Clone, Copy)]
enum Role {
    /// It predicts tokens.
    Writes,
    /// It is a reward model.
    Rates,
    /// It becomes a reward model, with a new head unless it has one.
    Becomes { padding: Option<u32>, seed: u32 },
}

impl Role {
    /// Returns an error if the model does not fit its purpose, else the seed of the new head if it needs one.
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
                    "is a reward model ({}), which scores text and cannot generate it: use it as the judge, or give a \
                     language model here",
                    config.name
                );
                Err(Error::file(dir, why))
            }
            (Role::Rates, false) => {
                let why = format!(
                    "is not a reward model but a {}: train one with oaif reward, or give a model whose architecture ends in \
                     ForSequenceClassification",
                    config.name
                );
                Err(Error::file(dir, why))
            }
        }
    }
}

/// Creates `dir` if it does not exist, and fills it. If that fails, a folder that did not exist before is removed.
pub(crate) async fn into_folder(dir: &Path, fill: impl Future<Output = Result<()>>) -> Result<()> {
    let new = !files::exists(dir);
    files::create_dir_all(dir)?;
    let filled = fill.await;
    if filled.is_err() && new {
        // Only the first error is reported.
        let _ = files::remove(dir);
    }
    filled
}

/// Reads the tensor `stored` of a file into the weight of `spec`.
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
            let why = format!("tensor {stored} holds {value}: the file is damaged, download it again");
            Err(Error::file(found.path(stored), why))
        }
    };
    match (spec.stored, spec.shape.as_slice()) {
        // Large matrices are read in pieces, so that they need not fit in host memory.
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

/// Downloads the numbers of a weight for saving.
///
/// # Errors
/// [`Error::SelfCheck`] for one that is not finite.
pub(crate) async fn finite(weights: &Weights, weight: &Weight) -> Result<Vec<f32>> {
    let values = weights.download(weight).await?;
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(values),
        Some(value) => Err(Error::SelfCheck(format!(
            "{} holds {value}, so nothing was saved: train it again with a lower learning rate",
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
