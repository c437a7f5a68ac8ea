//! The source of a model's tensors, which are read in pieces and as f32: safetensors files, or a GGUF file.

use std::ops::Range;
use std::path::Path;

use super::architecture::{Architecture, Stored, WeightSpec};
use super::safetensors_io::TensorFiles;
use crate::error::Result;
use crate::gguf::{self, GgufTensors};

/// The tensors of a model, under the names that transformers' files use.
pub(crate) enum TensorSource {
    Safetensors(TensorFiles),
    Gguf(GgufTensors),
}

impl TensorSource {
    /// Whether the model at `path` has weights.
    pub fn is_at(path: &Path) -> Result<bool> {
        Ok(TensorFiles::are_in(path) || gguf::file_of(path)?.is_some())
    }

    /// Opens the weights of the model at `path`, whose configuration has this architecture.
    pub fn open(path: &Path, architecture: &Architecture) -> Result<TensorSource> {
        Ok(match gguf::file_of(path)? {
            Some(file) => TensorSource::Gguf(GgufTensors::open(&file, architecture)?),
            None => TensorSource::Safetensors(TensorFiles::open(path)?),
        })
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            TensorSource::Safetensors(files) => Box::new(files.names()),
            TensorSource::Gguf(tensors) => Box::new(tensors.names()),
        }
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            TensorSource::Safetensors(files) => files.info(name).is_some(),
            TensorSource::Gguf(tensors) => tensors.has(name),
        }
    }

    /// The file of an existing tensor.
    pub fn path(&self, name: &str) -> &Path {
        match self {
            TensorSource::Safetensors(files) => &files.info(name).expect("it is there").path,
            TensorSource::Gguf(tensors) => tensors.path(),
        }
    }

    /// The name of the model's description, for messages.
    pub fn description(&self) -> &'static str {
        match self {
            TensorSource::Safetensors(_) => "config.json",
            TensorSource::Gguf(_) => "its architecture",
        }
    }

    /// A weight as it is stored here: GGUF stores weights in the layout in which they are used.
    pub fn stored(&self, spec: &WeightSpec) -> WeightSpec {
        match self {
            TensorSource::Safetensors(_) => spec.clone(),
            TensorSource::Gguf(_) => WeightSpec { stored: Stored::AsUsed, ..spec.clone() },
        }
    }

    /// Checks by the headers that a tensor can be read with the shape `expected`.
    pub fn check(&self, name: &str, expected: &[usize]) -> Result<()> {
        match self {
            TensorSource::Safetensors(files) => files.check(name, expected),
            TensorSource::Gguf(tensors) => tensors.check(name, expected),
        }
    }

    /// Reads all elements of a tensor of the shape `expected`, outermost dimension first.
    pub fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        match self {
            TensorSource::Safetensors(files) => files.read_f32(name, expected),
            TensorSource::Gguf(tensors) => tensors.read_f32(name, expected),
        }
    }

    /// Reads the rows `rows` of a tensor of the shape `expected`.
    pub fn read_rows_f32(&self, name: &str, expected: &[usize], rows: Range<usize>) -> Result<Vec<f32>> {
        match self {
            TensorSource::Safetensors(files) => files.read_rows_f32(name, expected, rows),
            TensorSource::Gguf(tensors) => tensors.read_rows_f32(name, expected, rows),
        }
    }
}
