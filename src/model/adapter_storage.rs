//! Loading LoRA adapters from folders in PEFT's layout, saving them, and merging them into the base weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::adapter_config::AdapterConfig;
use super::architecture::{self, Architecture, RATING_HEAD};
use super::companions::Companions;
use super::lora::{LoraConfig, LoraLayout};
use super::safetensors_io::TensorFiles;
use super::storage::{into_folder, read_into, save_weights};
use super::tensor_source::TensorSource;
use super::weights::{Weight, Weights};
use super::{Adapter, FloatFormat, Model};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Category, Format, Live, Plan, PlanOptions, Recorder, Region};
use crate::ops;
use crate::{files, gguf};

/// The file of the adapter's weights in PEFT's layout.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// The file of the adapter's configuration in PEFT's layout.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

impl Model {
    /// Adds a new adapter to this model, initialised from `seed`.
    ///
    /// # Errors
    /// [`Error::Config`] for an invalid rank or alpha.
    pub fn add_adapter(&self, config: LoraConfig, seed: u32) -> Result<Model> {
        let layout = config.layout(self.architecture())?;
        let specs = layout.weights(self.architecture());
        let weights = Weights::trained(self.gpu(), &specs)?;
        for (index, spec) in specs.iter().enumerate().filter(|_| !self.gpu().is_measuring()) {
            weights.upload(&spec.name, &LoraLayout::initial(spec, index, seed))?;
        }
        self.with_adapter(Adapter { layout, weights, warnings: Vec::new() })
    }

    /// Loads an adapter from a folder in PEFT's layout, in f32: frozen, or with `train` for further training. On a
    /// measuring `Gpu` its configuration is enough.
    ///
    /// # Errors
    /// [`Error::File`], which names the fault, for settings that are not supported, missing or unexpected tensors, and
    /// an adapter of another model.
    pub fn load_adapter(&self, dir: &Path, train: bool) -> Result<Model> {
        let (path, file) = (dir.join(ADAPTER_CONFIG), dir.join(ADAPTER_FILE));
        let in_config = |why| Error::file(&path, why);
        let config = AdapterConfig::load(dir)?;
        let layout = config.layout(self.architecture()).map_err(in_config)?;
        let mut warnings = config.warnings.clone();
        warnings.extend(self.other_base(&config));
        warnings.extend(self.other_texts(dir));
        if train && config.dropout > 0.0 {
            let dropout = config.dropout;
            warnings.push(format!(
                "the adapter's lora_dropout of {dropout} is ignored: training here has no dropout"
            ));
        }
        let specs = layout.weights(self.architecture());
        let gpu = self.gpu();
        let allocate = || match train {
            true => Weights::trained(gpu, &specs),
            false => Weights::frozen(gpu, &specs, FloatFormat::F32.into()),
        };
        if gpu.is_measuring() && !files::exists(&file) {
            let weights = allocate()?;
            return self.with_adapter(Adapter { layout, weights, warnings });
        }
        if !files::exists(&file) && files::exists(&dir.join("adapter_model.bin")) {
            let why = format!(
                "has only adapter_model.bin, which is not supported: save the adapter with PEFT as {ADAPTER_FILE}"
            );
            return Err(Error::file(dir, why));
        }
        let found = TensorFiles::open_file(&file)?;
        let stored = stored_names(&found, &layout, self.architecture(), &config)
            .map_err(|why| Error::file(&file, why))?;
        let weights = allocate()?;
        let found = TensorSource::Safetensors(found);
        for spec in specs.iter().filter(|_| !gpu.is_measuring()) {
            read_into(&found, &stored[&spec.name], &weights, spec)?;
        }
        self.with_adapter(Adapter { layout, weights, warnings })
    }

    /// Returns a warning if the adapter was made for a model whose name does not occur in this model's path.
    fn other_base(&self, config: &AdapterConfig) -> Option<String> {
        let (base, folder) = (config.base_model.as_ref()?, self.state.folder.as_ref()?);
        let name = base.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next()?.to_lowercase();
        // In a download cache, the name can be anywhere in the folder's path.
        let path = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        let same = path.to_string_lossy().to_lowercase().contains(&name);
        (!same).then(|| {
            format!(
                "the adapter's base_model_name_or_path is {base:?}, the model is {}: make sure that they are the same",
                folder.display()
            )
        })
    }

    /// Returns a warning if the adapter's folder has another tokenizer or chat template than the model, whose files are
    /// used.
    fn other_texts(&self, dir: &Path) -> Option<String> {
        let base = self.state.folder.as_ref()?;
        // For a GGUF model these files were written from its metadata, so they cannot be compared.
        if gguf::file_of(base).is_ok_and(|file| file.is_some()) {
            return None;
        }
        let differs = |name: &&str| {
            let [own, theirs] = [base.as_path(), dir].map(|folder| files::read(&folder.join(name)).ok());
            theirs.is_some() && theirs != own
        };
        let name = ["tokenizer.json", "chat_template.jinja"].into_iter().find(differs)?;
        Some(format!(
            "{} has a different {name} than the model, and the model's is used: to use the adapter's, copy \
             it into the model's folder",
            dir.display()
        ))
    }

    /// Adds the adapter to the base weights and removes it: W += scale · B A. This changes every model that shares the
    /// base. A base that is not in f32, where most of the adapter would be lost to rounding, is copied to f32 first.
    pub async fn merge_adapter(&self) -> Result<Model> {
        let Some(adapter) = self.adapter() else { return Ok(self.clone()) };
        if self.base().iter().any(|w| w.format != Format::F32) {
            let base = Arc::new(self.base().frozen_copy(FloatFormat::F32.into()).await?);
            return Box::pin(self.with(|state| state.base = base).merge_adapter()).await;
        }
        let mut r = Recorder::new(self.gpu());
        for term in adapter.layout.terms() {
            let w = self.base().bind(&mut r, &format!("{}.weight", adapter.layout.module(term)));
            let [a, b] = adapter.layout.tensors(term);
            let a = adapter.weights.bind(&mut r, &a).whole();
            let b =
                self.transposed(adapter.weights.get(&b).expect("B beside every A"), &adapter.weights).await?;
            let b = r.bind(&b, term.rank, w.rows, Format::F32);
            ops::merge_lora(&mut r, &w, a, b, adapter.layout.scale(term));
        }
        let plan = Plan::new(self.gpu(), r, &Arena::new(), PlanOptions::default()).await?;
        self.base().note_change();
        plan.submit(&Live::default(), 1)?.lasting().outputs().await?;
        if adapter.layout.rates() {
            let head = adapter.weights.get(&adapter.layout.head()).expect("it has one");
            self.base().upload(RATING_HEAD, &adapter.weights.download(head).await?)?;
        }
        Ok(self.without_adapter())
    }

    /// Returns a transposed copy of a small matrix.
    async fn transposed(&self, weight: &Weight, weights: &Weights) -> Result<Region> {
        let (rows, cols) = (weight.shape[0], weight.shape[1]);
        let values = weights.download(weight).await?;
        let turned = architecture::transposed(&values, rows, cols);
        Ok(self.gpu().buffer_with("transposed", Category::Workspace, &turned)?.region())
    }

    /// Writes the adapter to `dir` in PEFT's layout, together with the tokenizer's files of its base model's folder.
    pub async fn save_adapter(&self, dir: &Path, base_model: &Path) -> Result<()> {
        into_folder(dir, self.save_adapter_into(dir, base_model)).await
    }

    /// [`Model::save_adapter`] into an existing folder; it is not created again if it has been removed.
    pub(crate) async fn save_adapter_into(&self, dir: &Path, base_model: &Path) -> Result<()> {
        let adapter = self.adapter().expect("save_adapter needs an adapter");
        save_weights(&adapter.weights, &dir.join(ADAPTER_FILE), FloatFormat::F32).await?;
        let mut json = adapter.layout.to_json(&base_model.to_string_lossy());
        if let Some((name, commit)) = hub_name(base_model) {
            json["base_model_name_or_path"] = name.into();
            json["revision"] = commit.into();
        }
        files::write_atomic(&dir.join(ADAPTER_CONFIG), format!("{json:#}\n").as_bytes())?;
        Companions::Tokenizer.copy(base_model, dir)
    }
}

/// The name and commit of a model in a download cache, such as `models--ORG--NAME/snapshots/COMMIT`. An adapter that
/// refers to them can be used on other machines, too.
fn hub_name(folder: &Path) -> Option<(String, String)> {
    let commit = folder.file_name()?.to_str()?;
    let snapshots = folder.parent()?;
    let repo = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    let cached = snapshots.file_name()? == "snapshots" && repo.contains("--");
    cached.then(|| (repo.replacen("--", "/", 1), commit.to_owned()))
}

/// Returns the name in the file of each of the layout's tensors.
///
/// # Errors
/// A sentence about a tensor that is unexpected, missing, or of another shape.
fn stored_names(
    found: &TensorFiles,
    layout: &LoraLayout,
    architecture: &Architecture,
    config: &AdapterConfig,
) -> Result<BTreeMap<String, String>, String> {
    let mut stored: BTreeMap<String, String> = BTreeMap::new();
    for name in found.names() {
        if let Some(other) = stored.insert(plain_name(name), name.to_owned()) {
            return Err(format!(
                "tensors {other} and {name} are the same tensor of the adapter: remove one of them"
            ));
        }
    }
    let base = config.base_model.as_ref();
    let made_for = base.map_or(String::new(), |base| format!(" (its base model is {base:?})"));
    for term in layout.terms() {
        let (outputs, inputs) = architecture.projection_shape(term.projection);
        let [a, b] = layout.tensors(term);
        for (name, expected) in [(a, [term.rank, inputs]), (b, [outputs, term.rank])] {
            let Some(tensor) = stored.get(&name).and_then(|stored| found.info(stored)) else {
                return Err(format!("has no tensor {name}, which {ADAPTER_CONFIG} requires"));
            };
            if tensor.shape == expected {
                if FloatFormat::of(tensor.dtype).is_none() {
                    let dtype = tensor.dtype;
                    return Err(format!("tensor {name} has type {dtype:?}, expected F32, F16 or BF16"));
                }
                continue;
            }
            // Whether the tensor would fit this model with another rank.
            let rank_at = if name.contains("lora_B") { 1 } else { 0 };
            let fits = tensor.shape.len() == 2 && tensor.shape[1 - rank_at] == expected[1 - rank_at];
            let (shape, rank) = (&tensor.shape, term.rank);
            return Err(match fits {
                true => format!(
                    "tensor {name} has rank {}, but {ADAPTER_CONFIG} says {rank} (r, or rank_pattern): do they belong \
                     together?",
                    shape[rank_at]
                ),
                false => format!(
                    "tensor {name} has shape {shape:?}, but this model needs {expected:?}: the adapter was made for another \
                     model{made_for}"
                ),
            });
        }
    }
    if layout.rates() {
        let (name, expected) = (layout.head(), [1, architecture.hidden]);
        match stored.get(&name).and_then(|stored| found.info(stored)).map(|tensor| &tensor.shape) {
            Some(shape) if *shape == expected => {}
            Some(shape) => {
                return Err(format!(
                    "tensor {name} has shape {shape:?}, but this model needs {expected:?}: the adapter was made for another \
                     model{made_for}, or for more than one label"
                ));
            }
            None => return Err(format!("has no tensor {name}, which {ADAPTER_CONFIG} requires")),
        }
    }
    let head = layout.rates().then(|| layout.head());
    let used: BTreeSet<String> =
        layout.terms().iter().flat_map(|term| layout.tensors(term)).chain(head).collect();
    if let Some((plain, name)) = stored.iter().find(|(plain, _)| !used.contains(*plain)) {
        let names = architecture.names;
        let every = || {
            (0..architecture.layers)
                .flat_map(|layer| architecture.projections().map(move |p| names.module(p, layer)))
        };
        let readable = every()
            .any(|module| ["A", "B"].iter().any(|m| *plain == format!("{PREFIX}{module}.lora_{m}.weight")));
        let all = names.targets().join(", ");
        return Err(match readable {
            true => {
                format!(
                    "has the tensor {name}, which {ADAPTER_CONFIG} does not list: check that both files are from the same \
                     adapter"
                )
            }
            false => format!(
                "has the tensor {name}, which is not an A or B of {all} in one of this model's {} layers{made_for}: merge an \
                 adapter of embeddings or the head with PEFT's merge_and_unload",
                architecture.layers
            ),
        });
    }
    Ok(stored)
}

const PREFIX: &str = "base_model.model.";

/// Returns a tensor's name as current PEFT versions save it: with the prefix, and without the adapter's name `default`.
fn plain_name(name: &str) -> String {
    let bare = name.strip_prefix(PREFIX).unwrap_or(name);
    let bare =
        bare.strip_suffix(".default.weight").map_or(bare.to_owned(), |start| format!("{start}.weight"));
    format!("{PREFIX}{bare}")
}
