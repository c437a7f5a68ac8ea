//! Access to the tensors of a GGUF file under the names and in the element order of transformers' files.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use super::container::{Container, Tensor};
use super::layout::{Layout, to_halves};
use super::names::{ROPE_FREQS, ROPE_LONG, ROPE_SHORT, modules};
use super::tensor_type::TensorType;
use crate::error::Result;
use crate::model::{Architecture, FloatFormat, FrozenFormat};

/// The tensors of a file. Opening reads only the header. A tensor's elements are read on request, optionally a range of
/// rows at a time.
pub struct GgufTensors {
    container: Container,
    /// For each tensor, its name and layout in the file.
    named: BTreeMap<String, (String, Layout)>,
}

impl GgufTensors {
    /// Opens the file at `path`, of a model of this architecture. Tensors that the architecture does not have keep
    /// their names.
    ///
    /// # Errors
    /// [`crate::Error::File`] for a file that is not GGUF, or is damaged.
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

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.container.path()
    }

    /// Checks by the header that a tensor can be read with the shape `expected`.
    ///
    /// # Errors
    /// [`crate::Error::File`] for a missing tensor, another shape, or a type that is not supported.
    pub fn check(&self, name: &str, expected: &[usize]) -> Result<()> {
        self.find(name, expected).map(|_| ())
    }

    /// Reads all elements of a tensor of the shape `expected`, outermost dimension first.
    ///
    /// # Errors
    /// As [`GgufTensors::check`].
    pub fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        self.read_rows_f32(name, expected, 0..expected[0])
    }

    /// Reads the rows `rows` of a tensor of the shape `expected`; of a vector, these are elements.
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
                // All rows of the heads that contain these rows.
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
                "has no tensor for {name}, which its metadata require: download it again"
            ));
        };
        let tensor = &self.container.tensors()[stored];
        // Some writers omit dimensions of one.
        let plain = |shape: &[usize]| shape.iter().copied().skip_while(|size| *size == 1).collect::<Vec<_>>();
        if plain(&tensor.shape) != plain(expected) {
            return refused(format!(
                "tensor {stored} has shape {:?}, but its metadata require {expected:?}: the file is damaged, download it again",
                tensor.shape
            ));
        }
        if !tensor.kind.is_read() {
            return refused(unread(stored, tensor.kind));
        }
        Ok((tensor, *layout))
    }
}

/// The message about a tensor of an unsupported type.
fn unread(name: &str, kind: &TensorType) -> String {
    format!(
        "tensor {name} has type {}, supported are {}: use a file of one of these types, or create one with llama.cpp's \
         llama-quantize",
        kind.name,
        TensorType::read_ones()
    )
}

/// The format in which the matrices of the file at `path` are held on the GPU: the file's own if there is one; 8-bit
/// integers for several quantised types; f32 for several floating-point types.
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
