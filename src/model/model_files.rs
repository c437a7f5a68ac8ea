//! A model's tensors by the names that its architecture gives them, whatever its files call them.

use std::collections::BTreeSet;
use std::path::Path;

use super::architecture::WeightSpec;
use super::config::ModelConfig;
use super::names::Names;
use super::tensor_source::TensorSource;
use crate::error::{Error, Result};

/// What old files hold beside weights: rotary tables, and masks of attention.
const OF_OLD_FILES: [&str; 6] = [
    "rotary_emb.inv_freq",
    ".attn.bias",
    ".crossattention.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
];

/// Elements that are compared at a time.
const COMPARED: usize = 1 << 20;

/// The files of a model folder, opened.
pub(super) struct ModelFiles {
    files: TensorSource,
    names: &'static Names,
    /// What the names of the decoder's tensors begin with in these files: as in a causal model's, or nothing in those of a
    /// bare decoder, or once more in those of a model wrapped around one, which transformers reads as well.
    decoder: String,
}

impl ModelFiles {
    /// Opens the files in `dir`, or a GGUF file, of the model that `config` describes.
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<ModelFiles> {
        let files = TensorSource::open(dir, &config.architecture)?;
        let names = config.architecture.names;
        let usual = names.decoder.to_owned();
        let all = [usual.clone(), String::new(), format!("model.{usual}")];
        let final_norm = format!("{}.weight", names.final_norm);
        let found = all.into_iter().find(|decoder| files.has(&format!("{decoder}{final_norm}")));
        Ok(ModelFiles { files, names, decoder: found.unwrap_or(usual) })
    }

    /// The tensors.
    pub fn files(&self) -> &TensorSource {
        &self.files
    }

    /// What the files call the tensor `name`. A tied embedding may be stored under the head's name alone.
    pub fn stored_name(&self, name: &str, tied: bool) -> String {
        let stored = self.plain_name(name);
        let head = self.plain_name(&self.names.head());
        let under_head =
            tied && name == self.names.embedding() && !self.files.has(&stored) && self.files.has(&head);
        if under_head { head } else { stored }
    }

    fn plain_name(&self, name: &str) -> String {
        match name.strip_prefix(self.names.decoder) {
            Some(rest) => format!("{}{rest}", self.decoder),
            // The head is not the decoder's: it takes part in what was wrapped around both alone.
            None => match self.decoder.strip_suffix(self.names.decoder) {
                Some(outer) => format!("{outer}{name}"),
                None => name.to_owned(),
            },
        }
    }

    /// Settles whether the head is the embedding. As in transformers, a head of its own counts, whatever `config` says;
    /// `config` then says so too, with a warning.
    pub fn settle_head(&self, config: &mut ModelConfig) -> Result<()> {
        let [embedding, head] =
            [self.names.embedding(), self.names.head()].map(|name| self.plain_name(&name));
        let shape = [config.architecture.vocab, config.architecture.hidden];
        if config.architecture.rates {
            return Ok(());
        }
        match (self.files.has(&embedding), self.files.has(&head)) {
            (true, true) if config.architecture.tied => {
                if self.differ(&embedding, &head, &shape)? {
                    config.untie(format!(
                        "config.json says tie_word_embeddings, but {head} differs from {embedding}: the file's own head \
                         is used, and saved with the model"
                    ));
                }
                Ok(())
            }
            (true, false) if !config.architecture.tied => {
                let why = format!(
                    "has no tensor {head}, and config.json does not say tie_word_embeddings: set that to true if the \
                     head is the embedding, or get the missing file"
                );
                Err(Error::file(self.files.path(&embedding), why))
            }
            _ => Ok(()),
        }
    }

    fn differ(&self, embedding: &str, head: &str, shape: &[usize; 2]) -> Result<bool> {
        self.files.check(embedding, shape)?;
        self.files.check(head, shape)?;
        let step = (COMPARED / shape[1]).max(1);
        for first in (0..shape[0]).step_by(step) {
            let rows = first..(first + step).min(shape[0]);
            let [a, b] = [embedding, head].map(|name| self.files.read_rows_f32(name, shape, rows.clone()));
            if a? != b? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks by the headers alone that the files hold `specs`, and nothing else but what any model may leave: a copy
    /// of the embedding as head, the head of a model that is to rate, and what old files keep of tables and masks.
    pub fn check<'s>(
        &self,
        specs: impl Iterator<Item = &'s WeightSpec> + Clone,
        config: &ModelConfig,
    ) -> Result<()> {
        // A model that is to rate may have been tied.
        let tied = config.architecture.tied || config.architecture.rates;
        let used: BTreeSet<String> = specs.clone().map(|spec| self.stored_name(&spec.name, tied)).collect();
        let head = self.plain_name(&self.names.head());
        let ignored =
            |name: &str| OF_OLD_FILES.iter().any(|end| name.ends_with(end)) || (tied && name == head);
        let mut left = self.files.names().filter(|name| !used.contains(*name) && !ignored(name));
        if let Some(first) = left.next() {
            let why = format!(
                "holds {} tensor(s) that {} does not have, such as {first}: is {} the right one?",
                1 + left.count(),
                config.name,
                self.files.description()
            );
            return Err(Error::file(self.files.path(first), why));
        }
        specs
            .map(|spec| self.files.stored(spec))
            .try_for_each(|spec| self.files.check(&self.stored_name(&spec.name, tied), &spec.stored_shape()))
    }
}
