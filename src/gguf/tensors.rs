//! The tensors of a GGUF file as those of a model: by the names of transformers' files, in the order in which they are used.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use super::container::{Container, Tensor};
use super::layout::{Layout, to_halves};
use super::names::{ROPE_FREQS, ROPE_LONG, ROPE_SHORT, modules};
use super::tensor_type::TensorType;
use crate::error::Result;
use crate::model::{Architecture, FloatFormat, FrozenFormat};

/// The tensors of a file. Opening reads the header alone; a tensor's elements are read when asked for, a range of rows at a
/// time if wanted.
pub struct GgufTensors {
    container: Container,
    /// What the file calls each, and how it lies there.
    named: BTreeMap<String, (String, Layout)>,
}

impl GgufTensors {
    /// The tensors of the file at `path`, of a model of this architecture. What the architecture does not have keeps its
    /// name.
    ///
    /// # Errors
    /// [`crate::Error::File`] for what is no such file, and for a damaged one.
    pub fn open(path: &Path, architecture: &Architecture) -> Result<GgufTensors> {
        let container = Container::open(path)?;
        let gguf = container.text("general.architecture")?.unwrap_or_default();
        let mut named = BTreeMap::new();
        let mut left: BTreeSet<&str> = container.tensors().keys().map(String::as_str).collect();
        for module in modules(architecture) {
            let layout = Layout::of(&module, &gguf, architecture);
            for end in ["weight", "bias"] {
                let stored = format!("{}.{end}", module.gguf);
                if left.remove(stored.as_str()) {
                    named.insert(format!("{}.{end}", module.ours), (stored, layout));
                }
            }
        }
        for name in left.into_iter().filter(|name| ![ROPE_FREQS, ROPE_LONG, ROPE_SHORT].contains(name)) {
            named.insert(name.to_owned(), (name.to_owned(), Layout::Same));
        }
        Ok(GgufTensors { container, named })
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.container.path()
    }

    /// Whether a tensor can be read as one of the shape `expected`, by the header alone.
    ///
    /// # Errors
    /// [`crate::Error::File`] for one that is not there, of another shape, or of a type that is not read.
    pub fn check(&self, name: &str, expected: &[usize]) -> Result<()> {
        self.find(name, expected).map(|_| ())
    }

    /// All elements of a tensor of the shape `expected`, outermost dimension first.
    ///
    /// # Errors
    /// As [`GgufTensors::check`].
    pub fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        self.read_rows_f32(name, expected, 0..expected[0])
    }

    /// The rows `rows` of a tensor of the shape `expected`, of a vector the elements.
    ///
    /// # Errors
    /// As [`GgufTensors::check`].
    pub fn read_rows_f32(&self, name: &str, expected: &[usize], rows: Range<usize>) -> Result<Vec<f32>> {
        let (tensor, layout) = self.find(name, expected)?;
        let cols: usize = expected[1..].iter().product();
        let read = |rows: Range<usize>| self.container.elements(tensor, rows.start * cols..rows.end * cols);
        match layout {
            Layout::Same => read(rows),
            Layout::OneMore => Ok(read(rows)?.into_iter().map(|v| v - 1.0).collect()),
            Layout::Neighbours(heads) => {
                let head_dim = expected[0] / heads;
                // All rows of the heads that these rows are of.
                let whole = rows.start / head_dim * head_dim..rows.end.next_multiple_of(head_dim);
                let mut halves = to_halves(&read(whole.clone())?, head_dim, cols);
                halves.truncate((rows.end - whole.start) * cols);
                halves.drain(..(rows.start - whole.start) * cols);
                Ok(halves)
            }
        }
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<(&Tensor, Layout)> {
        let refused = |why: String| Err(self.container.refused(why));
        let Some((stored, layout)) = self.named.get(name) else {
            return refused(format!(
                "has no tensor for {name}, which its metadata ask for: get the file again"
            ));
        };
        let tensor = &self.container.tensors()[stored];
        // Dimensions of one are left out by some writers.
        let plain = |shape: &[usize]| shape.iter().copied().skip_while(|size| *size == 1).collect::<Vec<_>>();
        if plain(&tensor.shape) != plain(expected) {
            return refused(format!(
                "tensor {stored} has shape {:?}, its metadata ask for {expected:?}: the file is damaged, get it again",
                tensor.shape
            ));
        }
        if !tensor.kind.is_read() {
            return refused(unread(stored, tensor.kind));
        }
        Ok((tensor, *layout))
    }
}

/// Why a tensor is not read, and the way out.
fn unread(name: &str, kind: &TensorType) -> String {
    format!(
        "tensor {name} is of type {}, read are {}: take a file of one of these types, or make one by llama.cpp's \
         llama-quantize",
        kind.name,
        TensorType::read_ones()
    )
}

/// How the matrices of the file at `path` are held: as they are; as 8-bit integers where they are of several quantised types;
/// in f32 where they are of several formats of floats.
pub(crate) fn frozen_format(path: &Path) -> Result<FrozenFormat> {
    let container = Container::open(path)?;
    let matrices = || container.tensors().iter().filter(|(_, tensor)| tensor.shape.len() == 2);
    let of_layers = || matrices().filter(|(name, _)| name.starts_with("blk."));
    let quantised = |tensor: &Tensor| FloatFormat::parse(tensor.kind.name).is_none();
    if matrices().any(|(_, tensor)| quantised(tensor)) {
        let q4 = of_layers().all(|(_, tensor)| tensor.kind.name == "q4_0");
        return Ok(if q4 { FrozenFormat::Q4 } else { FrozenFormat::Q8 });
    }
    let mut formats = matrices().filter_map(|(_, tensor)| FloatFormat::parse(tensor.kind.name));
    let first = formats.next().unwrap_or_default();
    Ok(if formats.all(|format| format == first) { first } else { FloatFormat::F32 }.into())
}
