//! Writing of the GGUF container: metadata in memory, tensors in pieces.

use std::path::Path;

use super::container::{ALIGNMENT, Kind, MAGIC};
use super::tensor_type::TensorType;
use crate::error::Result;
use crate::files::AtomicFile;

const VERSION: u32 = 3;

/// Serialised metadata.
#[derive(Default)]
pub(super) struct Metadata {
    bytes: Vec<u8>,
    count: u64,
}

impl Metadata {
    pub fn text(&mut self, key: &str, value: &str) {
        self.begin(key, Kind::Text);
        self.string(value);
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.begin(key, Kind::U32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f64) {
        self.begin(key, Kind::F32);
        self.bytes.extend((value as f32).to_le_bytes());
    }

    pub fn flag(&mut self, key: &str, value: bool) {
        self.begin(key, Kind::Bool);
        self.bytes.push(value.into());
    }

    pub fn texts<S: AsRef<str>>(&mut self, key: &str, values: &[S]) {
        self.list(key, Kind::Text, values.len());
        values.iter().for_each(|value| self.string(value.as_ref()));
    }

    pub fn i32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = i32>) {
        self.list(key, Kind::I32, values.len());
        self.bytes.extend(values.flat_map(i32::to_le_bytes));
    }

    pub fn f32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = f32>) {
        self.list(key, Kind::F32, values.len());
        self.bytes.extend(values.flat_map(f32::to_le_bytes));
    }

    fn begin(&mut self, key: &str, kind: Kind) {
        self.count += 1;
        self.string(key);
        self.bytes.extend((kind as u32).to_le_bytes());
    }

    fn list(&mut self, key: &str, kind: Kind, count: usize) {
        self.begin(key, Kind::Array);
        self.bytes.extend((kind as u32).to_le_bytes());
        self.bytes.extend((count as u64).to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }
}

/// A tensor that will be written.
pub(super) struct Planned {
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    pub kind: &'static TensorType,
}

impl Planned {
    fn bytes(&self) -> u64 {
        (self.shape.iter().product::<usize>() / self.kind.block * self.kind.bytes) as u64
    }
}

/// Starts a file with these tensors, whose data follow in order by [`push`].
pub(super) fn create(path: &Path, metadata: &Metadata, tensors: &[Planned]) -> Result<AtomicFile> {
    let mut header = Vec::with_capacity(metadata.bytes.len() + 128 * tensors.len());
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend(metadata.count.to_le_bytes());
    header.extend(&metadata.bytes);
    let mut offset = 0u64;
    for tensor in tensors {
        header.extend((tensor.name.len() as u64).to_le_bytes());
        header.extend(tensor.name.as_bytes());
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|size| header.extend((*size as u64).to_le_bytes()));
        header.extend(tensor.kind.id().to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    let mut file = AtomicFile::create(path)?;
    file.write(&header)?;
    Ok(file)
}

/// Writes the data of the next tensor, in pieces.
pub(super) fn push(
    file: &mut AtomicFile,
    tensor: &Planned,
    pieces: impl Iterator<Item = Result<Vec<u8>>>,
) -> Result<()> {
    let mut written = 0;
    for piece in pieces {
        let piece = piece?;
        written += piece.len() as u64;
        file.write(&piece)?;
    }
    assert_eq!(written, tensor.bytes(), "bytes of {}", tensor.name);
    file.write(&vec![0; (written.next_multiple_of(ALIGNMENT) - written) as usize])
}
