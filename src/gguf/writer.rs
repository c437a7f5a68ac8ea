//! Writing the container: metadata in memory, tensors in pieces.

use std::io::Write;
use std::path::Path;

use super::container::{ALIGNMENT, Kind, MAGIC};
use super::tensor_type::TensorType;
use crate::error::{Error, Result};
use crate::files;

const VERSION: u32 = 3;

/// Metadata as they are written.
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

/// A tensor to be written.
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

/// Writes a file atomically. `data` is asked for the bytes of one of `tensors` after the other, by its index, which it gives piece by piece to
/// the function that it gets.
pub(super) fn write_atomic(
    path: &Path,
    metadata: &Metadata,
    tensors: &[Planned],
    mut data: impl FnMut(usize, &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<()> {
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
    files::write_atomic_with(path, |file| {
        let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io("write", path));
        write(&header)?;
        for (index, tensor) in tensors.iter().enumerate() {
            let mut written = 0;
            data(index, &mut |bytes| {
                written += bytes.len() as u64;
                write(bytes)
            })?;
            assert_eq!(written, tensor.bytes(), "bytes of {}", tensor.name);
            write(&vec![0; (written.next_multiple_of(ALIGNMENT) - written) as usize])?;
        }
        Ok(())
    })
}
