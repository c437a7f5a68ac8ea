//! Access to a model's tensors by the names of its architecture, which may differ from those in its files.

use std::collections::BTreeSet;
use std::path::Path;

use super::architecture::WeightSpec;
use super::config::ModelConfig;
use super::names::Names;
use super::tensor_source::TensorSource;
use crate::error::{Error, Result};

/// Tensors in old files that are not weights: RoPE tables and attention masks.
const OF_OLD_FILES: [&str; 6] = [
    "rotary_emb.inv_freq",
    ".attn.bias",
    ".crossattention.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
];

/// The number of elements that are compared at a time.
const COMPARED: usize = 1 << 20;

/// The opened files of a model folder.
pub(super) struct ModelFiles {
    files: TensorSource,
    names: &'static Names,
    /// The prefix of the decoder's tensor names in these files. It is the family's own prefix in the files of a causal
    /// language model, nothing in those of a bare decoder, and one more `model.` in those of a model that wraps a
    /// causal one. transformers reads all three.
    decoder: String,
}

impl ModelFiles {
    /// Opens the files in `dir`, or the GGUF file, of the model that `config` describes.
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

    /// Returns the name in the files of the tensor `name`. A tied embedding may be stored only under the head's name.
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
            // The head is outside the decoder, so only the prefix of a wrapping model applies to it.
            None => match self.decoder.strip_suffix(self.names.decoder) {
                Some(outer) => format!("{outer}{name}"),
                None => name.to_owned(),
            },
        }
    }

    /// Determines whether the head is tied to the embedding. As in transformers, a separate head in the files takes
    /// precedence over `config`, which is then changed accordingly, with a warning.
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
                    config.separate_head(format!(
                        "config.json has tie_word_embeddings, but {head} differs from {embedding}: the separate head \
                         is used and is saved with the model"
                    ));
                }
                Ok(())
            }
            (true, false) if !config.architecture.tied => {
                let why = format!(
                    "has no tensor {head}, and config.json does not set tie_word_embeddings: set it to true if the \
                     head is tied to the embedding, or download the missing file"
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

    /// Checks by the headers that the files have all tensors of `specs`, and no others except those that any model may
    /// have: a copy of the embedding as the head, the unused head of a reward model, and the tables and masks of old
    /// files.
    pub fn check<'s>(
        &self,
        specs: impl Iterator<Item = &'s WeightSpec> + Clone,
        config: &ModelConfig,
    ) -> Result<()> {
        // A language model that becomes a reward model may have had a tied head.
        let tied = config.architecture.tied || config.architecture.rates;
        let used: BTreeSet<String> = specs.clone().map(|spec| self.stored_name(&spec.name, tied)).collect();
        let head = self.plain_name(&self.names.head());
        let ignored =
            |name: &str| OF_OLD_FILES.iter().any(|end| name.ends_with(end)) || (tied && name == head);
        let mut left = self.files.names().filter(|name| !used.contains(*name) && !ignored(name));
        if let Some(first) = left.next() {
            let why = format!(
                "has {} tensor(s) that do not belong to {}, such as {first}: check that {} belongs to this file",
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
