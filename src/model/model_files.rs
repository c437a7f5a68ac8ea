//! A model's tensors by the names that its architecture gives them, whatever its files call them.

use std::collections::BTreeSet;
use std::path::Path;

use super::architecture::{EMBEDDING, FINAL_NORM, HEAD, WeightSpec};
use super::config::ModelConfig;
use super::safetensors_io::TensorFiles;
use crate::error::{Error, Result};

/// What names begin with in a causal model's files.
const PREFIX: &str = "model.";
/// And in those of a bare decoder, and of a model wrapped once more, which transformers reads as well.
const OTHERS: [&str; 2] = ["", "model.model."];

/// Elements that are compared at a time.
const COMPARED: usize = 1 << 20;

/// The files of a model folder, opened.
pub(super) struct ModelFiles {
    files: TensorFiles,
    prefix: &'static str,
}

impl ModelFiles {
    /// Opens the files in `dir`.
    pub fn open(dir: &Path) -> Result<ModelFiles> {
        let files = TensorFiles::open(dir)?;
        let begins = |prefix: &&str| files.info(&renamed(FINAL_NORM, prefix)).is_some();
        let prefix = match begins(&PREFIX) {
            true => PREFIX,
            false => OTHERS.into_iter().find(begins).unwrap_or(PREFIX),
        };
        Ok(ModelFiles { files, prefix })
    }

    /// The tensors.
    pub fn files(&self) -> &TensorFiles {
        &self.files
    }

    /// What the files call the tensor `name`. A tied embedding may be stored under the head's name alone.
    pub fn stored_name(&self, name: &str, tied: bool) -> String {
        let stored = self.plain_name(name);
        let head = self.plain_name(HEAD);
        let under_head = tied
            && name == EMBEDDING
            && self.files.info(&stored).is_none()
            && self.files.info(&head).is_some();
        if under_head { head } else { stored }
    }

    fn plain_name(&self, name: &str) -> String {
        // The head is not the decoder's: it takes part in what was wrapped around both alone.
        match (name, self.prefix.strip_suffix(PREFIX)) {
            (HEAD, outer) => format!("{}{HEAD}", outer.unwrap_or_default()),
            (name, _) => renamed(name, self.prefix),
        }
    }

    /// Settles whether the head is the embedding. As in transformers, a head of its own counts, whatever `config` says;
    /// `config` then says so too, with a warning.
    pub fn settle_head(&self, config: &mut ModelConfig) -> Result<()> {
        let [embedding, head] = [EMBEDDING, HEAD].map(|name| self.plain_name(name));
        let shape = [config.vocab_size, config.hidden_size];
        match (self.files.info(&embedding), self.files.info(&head)) {
            (Some(_), Some(_)) if config.tie_word_embeddings => {
                if self.differ(&embedding, &head, &shape)? {
                    config.untie(format!(
                        "config.json says tie_word_embeddings, but {head} differs from {embedding}: the file's own head \
                         is used, and saved with the model"
                    ));
                }
                Ok(())
            }
            (Some(tensor), None) if !config.tie_word_embeddings => {
                let why = format!(
                    "has no tensor {head}, and config.json does not say tie_word_embeddings: set that to true if the \
                     head is the embedding, or get the missing file"
                );
                Err(Error::file(&tensor.path, why))
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
    /// of the embedding as head, and the rotary tables of old files.
    pub fn check(&self, specs: &[WeightSpec], config: &ModelConfig) -> Result<()> {
        let tied = config.tie_word_embeddings;
        let used: BTreeSet<String> = specs.iter().map(|spec| self.stored_name(&spec.name, tied)).collect();
        let head = self.plain_name(HEAD);
        let ignored = |name: &str| name.ends_with("rotary_emb.inv_freq") || (tied && name == head);
        let mut left = self.files.names().filter(|name| !used.contains(*name) && !ignored(name));
        if let Some(first) = left.next() {
            let why = format!(
                "holds {} tensor(s) that {} does not have, such as {first}: is config.json the right one?",
                1 + left.count(),
                config.architecture
            );
            return Err(Error::file(&self.files.info(first).expect("one of its names").path, why));
        }
        specs.iter().try_for_each(|spec| self.files.check(&self.stored_name(&spec.name, tied), &spec.shape))
    }
}

/// A decoder's tensor name with another beginning.
fn renamed(name: &str, prefix: &str) -> String {
    name.strip_prefix(PREFIX).map_or_else(|| name.to_owned(), |rest| format!("{prefix}{rest}"))
}
