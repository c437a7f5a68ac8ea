//! Models: configuration, weights and adapters as Hugging Face and PEFT store them, and the decoder.

mod adapter_config;
pub mod adapter_storage;
pub mod architecture;
mod check;
mod companions;
pub mod config;
mod decoder;
pub mod families;
pub(crate) mod fingerprint;
mod format;
pub(crate) mod kv_cache;
pub mod lora;
mod model_files;
mod module_match;
pub mod names;
pub(crate) mod rater;
pub mod rope;
mod rope_table;
pub mod safetensors_io;
mod scorer;
mod settings;
pub mod storage;
pub mod stream;
pub(crate) mod tensor_source;
pub mod weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use architecture::Architecture;
pub use config::ModelConfig;
pub(crate) use decoder::{Keys, StreamTensors};
pub use format::{FloatFormat, FrozenFormat};
pub use lora::{LoraConfig, LoraLayout, LoraTargets};
pub use rater::Rater;
pub use scorer::{Scored, Scorer, score_all};
pub use weights::Weights;

use rope_table::RopeTable;

use crate::error::Result;
use crate::gpu::Gpu;

/// A decoder with its weights on a GPU. Clones share them.
#[derive(Clone)]
pub struct Model {
    state: Arc<ModelState>,
}

#[derive(Clone)]
struct ModelState {
    gpu: Gpu,
    config: ModelConfig,
    architecture: Architecture,
    base: Arc<Weights>,
    adapter: Option<Arc<Adapter>>,
    /// The tables of [`architecture::Attention::ropes`].
    ropes: Arc<Vec<RopeTable>>,
    /// The folder that it was loaded from.
    folder: Option<PathBuf>,
}

/// A LoRA adapter on the device.
pub struct Adapter {
    /// Which modules have a term, and each term's rank and alpha.
    pub layout: LoraLayout,
    /// A and B of every term.
    pub weights: Weights,
    /// Warnings about its files, to be shown to the user.
    pub warnings: Vec<String>,
}

/// The largest context: a model with a longer one is limited to this many positions.
const MAX_POSITIONS: usize = 131_072;

impl Model {
    /// Creates a model of `config` with weights that are on the GPU already.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for impossible sizes, and for weights that are missing, have another shape or are on
    /// another device; memory errors.
    pub fn new(gpu: &Gpu, config: ModelConfig, base: Weights) -> Result<Model> {
        let mut architecture = config.architecture.clone();
        architecture.check()?;
        base.check(gpu, &architecture.weights(), "model")?;
        architecture.context = architecture.context.min(MAX_POSITIONS);
        let table = |rope| RopeTable::new(gpu, rope, architecture.context);
        let ropes = Arc::new(architecture.attention.ropes.iter().map(table).collect());
        let (gpu, base) = (gpu.clone(), Arc::new(base));
        Ok(Model {
            state: Arc::new(ModelState {
                gpu,
                config,
                architecture,
                base,
                adapter: None,
                ropes,
                folder: None,
            }),
        })
    }

    fn of_folder(&self, folder: &Path) -> Model {
        self.with(|state| state.folder = Some(folder.to_owned()))
    }

    /// Warnings about the files of this model and its adapter, to be shown to the user: settings that are ignored, and
    /// settings that are applied in another way than the configuration says.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        let adapter = self.adapter().into_iter().flat_map(|adapter| &adapter.warnings);
        self.config().warnings.iter().chain(adapter).map(String::as_str)
    }

    fn with(&self, change: impl FnOnce(&mut ModelState)) -> Model {
        let mut state = ModelState::clone(&self.state);
        change(&mut state);
        Model { state: Arc::new(state) }
    }

    /// Returns the same base model with an adapter.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for an invalid rank or alpha, and for weights that are missing, have another shape or
    /// are on another device.
    pub fn with_adapter(&self, adapter: Adapter) -> Result<Model> {
        adapter.layout.check(self.architecture())?;
        adapter.weights.check(self.gpu(), &adapter.layout.weights(self.architecture()), "adapter")?;
        if let Some(split) = adapter.weights.iter().find(|weight| weight.parts().count() > 1) {
            return Err(crate::Error::Limit {
                what: split.name.clone(),
                needed: split.elements() as u64 * 4,
                limit: self.gpu().limits().binding,
                remedy: crate::error::Remedy::LowerRank,
            });
        }
        Ok(self.with(|state| state.adapter = Some(Arc::new(adapter))))
    }

    /// Returns an error unless the model is on this device.
    pub(crate) fn check_gpu(&self, gpu: &Gpu) -> Result<()> {
        match self.gpu().is(gpu) {
            true => Ok(()),
            false => {
                let why = "is another device than the model's: pass the Gpu that the model was loaded on";
                Err(crate::Error::config("gpu", why))
            }
        }
    }

    /// Returns the same base model without the adapter: the reference model of LoRA training, which takes no memory of
    /// its own.
    pub fn without_adapter(&self) -> Model {
        self.with(|state| state.adapter = None)
    }

    /// Returns the model as it is now; later training does not change it. Trained weights are copied, the others are
    /// shared.
    pub async fn snapshot(&self) -> Result<Model> {
        self.snapshot_as(FloatFormat::F32.into()).await
    }

    /// [`Model::snapshot`] with the copied base weights rounded to `format`.
    pub async fn snapshot_as(&self, format: FrozenFormat) -> Result<Model> {
        let base = match self.state.base.segments.is_empty() {
            true => None,
            false => Some(Arc::new(self.state.base.frozen_copy(format).await?)),
        };
        let adapter = match &self.state.adapter {
            None => None,
            Some(a) => {
                let weights = a.weights.frozen_copy(FloatFormat::F32.into()).await?;
                let (layout, warnings) = (a.layout.clone(), a.warnings.clone());
                Some(Arc::new(Adapter { layout, weights, warnings }))
            }
        };
        Ok(self.with(|state| {
            state.base = base.unwrap_or(state.base.clone());
            state.adapter = adapter;
        }))
    }

    /// The GPU that holds the model.
    pub fn gpu(&self) -> &Gpu {
        &self.state.gpu
    }

    /// The context length: the largest number of tokens in a sequence.
    pub fn context(&self) -> usize {
        self.architecture().context
    }

    /// The number of tokens in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.architecture().vocab
    }

    /// The configuration, as read from `config.json`.
    pub fn config(&self) -> &ModelConfig {
        &self.state.config
    }

    /// The architecture of the decoder.
    pub fn architecture(&self) -> &Architecture {
        &self.state.architecture
    }

    /// Counts the changes of the weights: results computed from them are valid as long as this number stays the same.
    pub(crate) fn changes(&self) -> u64 {
        self.base().changes() + self.adapter().map_or(0, |adapter| adapter.weights.changes())
    }

    /// The base weights.
    pub fn base(&self) -> &Weights {
        &self.state.base
    }

    /// The adapter.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.state.adapter.as_deref()
    }

    /// The weights that are trained: the adapter's if there is one, else the base weights.
    pub fn trained(&self) -> &Weights {
        self.state.adapter.as_ref().map_or(&self.state.base, |a| &a.weights)
    }

    /// The weights that are frozen in training: the base weights if there is an adapter.
    pub fn frozen(&self) -> Option<&Weights> {
        self.state.adapter.as_ref().map(|_| &*self.state.base)
    }
}
