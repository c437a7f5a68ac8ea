//! The GGUF container. The header, with the metadata and the descriptions of tensors, is read first; the data of
//! tensors is read on request.
//!
//! A file is little endian and consists of: "GGUF"; the version (u32); the numbers of tensors and of metadata entries
//! (u64 each); the key, type and value of each entry; the name, dimensions (innermost first), type and offset of each
//! tensor; and, from the next multiple of the alignment on, the data of the tensors. Every length and count is checked
//! against the rest of the file before memory is allocated for it.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tensor_type::TensorType;
use crate::error::{Error, Result};
use crate::files::{self, Opened};

/// The first bytes of a file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// The default alignment of the tensor data.
pub(super) const ALIGNMENT: u64 = 32;
/// The metadata entry with another alignment.
const ALIGNMENT_KEY: &str = "general.alignment";

/// The size of the longest header that is accepted; that of a vocabulary of 262 thousand tokens has 8 MiB.
const MAX_HEADER: u64 = 256 << 20;
/// The longest key or tensor name.
const MAX_NAME: u64 = 1 << 16;
/// The largest number of dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// The largest alignment.
const MAX_ALIGNMENT: u64 = 1 << 20;
/// The largest number of elements of a tensor. It keeps sizes in bytes within 64 bits.
const MAX_ELEMENTS: u64 = 1 << 48;

/// The types of metadata values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Text = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::Text,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    fn of(id: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u32 == id)
    }

    /// The size of a value in bytes; `None` for types with a length prefix.
    fn bytes(self) -> Option<u64> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::Text | Kind::Array => None,
        }
    }

    /// Decodes a value of fixed size.
    fn decode(self, bytes: &[u8]) -> Value {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let unsigned = u64::from_le_bytes(wide);
        let spare = 64 - 8 * bytes.len() as u32;
        let signed = ((unsigned << spare) as i64) >> spare;
        match self {
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => unsigned.into(),
            Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => signed.into(),
            Kind::Bool => (unsigned != 0).into(),
            // Converted through the shortest decimal form, so that 1e-6 remains 1e-6 as an f64.
            Kind::F32 => {
                f32::from_bits(unsigned as u32).to_string().parse::<f64>().map_or(Value::Null, Value::from)
            }
            Kind::F64 => f64::from_bits(unsigned).into(),
            Kind::Text | Kind::Array => unreachable!("they have no fixed length"),
        }
    }
}

/// A metadata value, or its place in the file.
#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Scalar(Value),
    Text { start: u64, bytes: u64 },
    Array { kind: Kind, start: u64, count: u64 },
}

/// The location of a tensor in a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub kind: &'static TensorType,
    /// The offset of its first byte in the file.
    start: u64,
}

/// An opened GGUF file.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    tensors: BTreeMap<String, Tensor>,
}

impl Container {
    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is not GGUF, is damaged, or has an unsupported version or byte order.
    pub fn open(path: &Path) -> Result<Container> {
        let (file, length) = files::open(path)?;
        let mut header =
            Header { path, file: BufReader::new(file), at: 0, end: length.min(MAX_HEADER), length };
        header.read()
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The number or boolean `key`.
    ///
    /// # Errors
    /// [`Error::File`] for a text or a list.
    pub fn scalar(&self, key: &str) -> Result<Option<&Value>> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Entry::Scalar(value)) => Ok(Some(value)),
            Some(Entry::Text { .. }) => Err(self.refused(format!("{key} is a text, expected a number"))),
            Some(Entry::Array { .. }) => {
                Err(self.refused(format!("{key} is a list, but only one value for all layers is supported")))
            }
        }
    }

    /// The text `key`.
    ///
    /// # Errors
    /// [`Error::File`] for another type.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(&Entry::Text { start, bytes }) => {
                let bytes = self.bytes(start, bytes as usize)?;
                let text = String::from_utf8(bytes);
                text.map(Some).map_err(|_| self.refused(format!("{key} is not UTF-8 text")))
            }
            Some(_) => Err(self.refused(format!("{key} is not a text"))),
        }
    }

    /// The number of elements of the list `key`; `None` if there is no such list.
    pub fn count(&self, key: &str) -> Option<u64> {
        match self.entries.get(key) {
            Some(Entry::Array { count, .. }) => Some(*count),
            _ => None,
        }
    }

    /// The texts of the list `key`.
    ///
    /// # Errors
    /// [`Error::File`] for another type, and for text that is not UTF-8.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        let (start, count) = match self.entries.get(key) {
            None => return Ok(None),
            Some(&Entry::Array { kind: Kind::Text, start, count }) => (start, count),
            Some(_) => return Err(self.refused(format!("{key} is not a list of texts"))),
        };
        let mut file = self.seek(start)?;
        // The count and all lengths were validated when the header was read.
        let mut out = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let mut length = [0; 8];
            file.read_exact(&mut length).map_err(Error::io("read", &self.path))?;
            let length = u64::from_le_bytes(length).min(MAX_HEADER);
            let mut bytes = vec![0; length as usize];
            file.read_exact(&mut bytes).map_err(Error::io("read", &self.path))?;
            let text = String::from_utf8(bytes);
            out.push(text.map_err(|_| self.refused(format!("{key}[{}] is not UTF-8 text", out.len())))?);
        }
        Ok(Some(out))
    }

    /// The numbers or booleans of the list `key`.
    ///
    /// # Errors
    /// [`Error::File`] for another type.
    pub fn list(&self, key: &str) -> Result<Option<Vec<Value>>> {
        let (kind, start, count) = match self.entries.get(key) {
            None => return Ok(None),
            Some(&Entry::Array { kind, start, count }) if kind.bytes().is_some() => (kind, start, count),
            Some(_) => return Err(self.refused(format!("{key} is not a list of numbers"))),
        };
        let size = kind.bytes().expect("checked above") as usize;
        let bytes = self.bytes(start, count as usize * size)?;
        Ok(Some(bytes.chunks_exact(size).map(|bytes| kind.decode(bytes)).collect()))
    }

    /// Reads the elements `range` of a tensor as f32. The range must consist of whole blocks; rows do.
    pub fn elements(&self, tensor: &Tensor, range: Range<usize>) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(range.len());
        self.blocks(tensor, range.start, range.len(), |bytes| tensor.kind.decode(bytes, &mut values))?;
        Ok(values)
    }

    /// Passes the bytes of `count` elements, starting at element `first`, to `take`, a few MiB at a time. They must be
    /// whole blocks.
    fn blocks(&self, tensor: &Tensor, first: usize, count: usize, mut take: impl FnMut(&[u8])) -> Result<()> {
        let kind = tensor.kind;
        assert!(
            first.is_multiple_of(kind.block) && count.is_multiple_of(kind.block),
            "whole blocks of {kind:?}"
        );
        let mut file = self.seek(tensor.start + (first / kind.block * kind.bytes) as u64)?;
        let mut left = count / kind.block;
        let at_a_time = ((1 << 20) / kind.bytes).min(left);
        let mut chunk = vec![0; at_a_time * kind.bytes];
        while left > 0 {
            let blocks = at_a_time.min(left);
            let chunk = &mut chunk[..blocks * kind.bytes];
            file.read_exact(chunk).map_err(Error::io("read", &self.path))?;
            take(chunk);
            left -= blocks;
        }
        Ok(())
    }

    fn seek(&self, start: u64) -> Result<BufReader<Opened>> {
        let (mut file, _) = files::open(&self.path)?;
        file.seek(SeekFrom::Start(start)).map_err(Error::io("read", &self.path))?;
        Ok(BufReader::new(file))
    }

    fn bytes(&self, start: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.seek(start)?.read_exact(&mut bytes).map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }

    /// Creates an error about this file.
    pub fn refused(&self, why: impl Into<String>) -> Error {
        Error::file(&self.path, why)
    }
}

/// The state of reading a header.
struct Header<'a> {
    path: &'a Path,
    file: BufReader<Opened>,
    /// The number of bytes read so far.
    at: u64,
    /// The offset at which the header must have ended.
    end: u64,
    /// The size of the file in bytes.
    length: u64,
}

impl Header<'_> {
    fn refused<T>(&self, why: impl Into<String>) -> Result<T> {
        Err(Error::file(self.path, why))
    }

    fn read(&mut self) -> Result<Container> {
        let magic = self.fixed::<4>("the header")?;
        if magic != MAGIC {
            return self.refused("is not a GGUF file: its first bytes are not \"GGUF\"");
        }
        let version = self.u32("the version")?;
        match version {
            2 | 3 => {}
            _ if version.swap_bytes() < 1 << 16 => {
                return self
                    .refused("is in big-endian byte order, which is not supported: convert the model again");
            }
            _ => {
                return self.refused(format!(
                    "has GGUF version {version}, supported are 2 and 3: convert the model again with a newer llama.cpp"
                ));
            }
        }
        let (tensors, entries) = (self.u64("the header")?, self.u64("the header")?);
        // An entry takes at least 13 bytes and a tensor at least 24, so larger counts are impossible.
        for (what, count, least) in [("metadata entries", entries, 13), ("tensors", tensors, 24)] {
            if count > (self.end - self.at) / least {
                return self.refused(format!(
                    "is damaged: its header lists {count} {what}, more than fit in its {} bytes; download it again",
                    self.length
                ));
            }
        }
        let entries = self.entries(entries)?;
        let alignment = match entries.get(ALIGNMENT_KEY) {
            None => ALIGNMENT,
            Some(Entry::Scalar(value)) => match value.as_u64() {
                Some(alignment) if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT => alignment,
                _ => return self.refused(format!("{ALIGNMENT_KEY} is {value}, expected a power of two")),
            },
            Some(_) => return self.refused(format!("{ALIGNMENT_KEY} is not a number")),
        };
        let tensors = self.tensors(tensors, alignment)?;
        Ok(Container { path: self.path.to_owned(), entries, tensors })
    }

    fn entries(&mut self, count: u64) -> Result<BTreeMap<String, Entry>> {
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let key = self.name("a metadata key")?;
            let entry = self.entry(&key)?;
            if entries.contains_key(&key) {
                return self
                    .refused(format!("is damaged: it has two metadata entries {key:?}; download it again"));
            }
            entries.insert(key, entry);
        }
        Ok(entries)
    }

    fn entry(&mut self, key: &str) -> Result<Entry> {
        let kind = self.kind(key)?;
        if kind == Kind::Text {
            let bytes = self.u64(key)?;
            let start = self.at;
            self.skip(bytes, key)?;
            return Ok(Entry::Text { start, bytes });
        }
        if kind == Kind::Array {
            let (kind, count) = (self.kind(key)?, self.u64(key)?);
            let start = self.at;
            match kind {
                Kind::Array => {
                    return self.refused(format!("{key} is a list of lists, which is not supported"));
                }
                Kind::Text => {
                    if count > (self.end - self.at) / 8 {
                        return self.truncated(key, count.saturating_mul(8));
                    }
                    for _ in 0..count {
                        let bytes = self.u64(key)?;
                        self.skip(bytes, key)?;
                    }
                }
                kind => {
                    let size = kind.bytes().expect("neither a text nor a list");
                    self.skip(count.saturating_mul(size), key)?;
                }
            }
            return Ok(Entry::Array { kind, start, count });
        }
        let size = kind.bytes().expect("neither a text nor a list") as usize;
        let mut bytes = [0; 8];
        self.fill(&mut bytes[..size], key)?;
        Ok(Entry::Scalar(kind.decode(&bytes[..size])))
    }

    fn kind(&mut self, key: &str) -> Result<Kind> {
        let id = self.u32(key)?;
        match Kind::of(id) {
            Some(kind) => Ok(kind),
            None => self
                .refused(format!("{key} has the unknown type {id}: the file is damaged, download it again")),
        }
    }

    fn tensors(&mut self, count: u64, alignment: u64) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for _ in 0..count {
            let name = self.name("a tensor's name")?;
            let tensor = self.tensor(&name, alignment)?;
            if tensors.contains_key(&name) {
                return self.refused(format!("is damaged: it has two tensors {name:?}; download it again"));
            }
            tensors.insert(name, tensor);
        }
        let data = self.at.next_multiple_of(alignment);
        let mut placed: Vec<(u64, u64, &str)> = Vec::new();
        for (name, (tensor, bytes)) in &mut tensors {
            let Some(end) = data.checked_add(tensor.start).and_then(|start| start.checked_add(*bytes)) else {
                return self
                    .refused(format!("is damaged: tensor {name} starts beyond any file; download it again"));
            };
            tensor.start += data;
            if end > self.length {
                return self.refused(format!(
                    "is truncated: it has {} bytes, but tensor {name} ends at {end}; download it again",
                    self.length
                ));
            }
            placed.push((tensor.start, end, name));
        }
        placed.sort();
        if let Some(pair) = placed.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            let (a, b) = (pair[0].2, pair[1].2);
            return self.refused(format!("is damaged: tensors {a} and {b} overlap; download it again"));
        }
        Ok(tensors.into_iter().map(|(name, (tensor, _))| (name, tensor)).collect())
    }

    /// Reads the description of a tensor, and returns it with its size in bytes. Its start is still relative to the
    /// start of the data.
    fn tensor(&mut self, name: &str, alignment: u64) -> Result<(Tensor, u64)> {
        let dimensions = self.u32(name)?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return self.refused(format!(
                "tensor {name} has {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}"
            ));
        }
        let mut shape = Vec::new();
        let mut elements = 1u64;
        for _ in 0..dimensions {
            let size = self.u64(name)?;
            elements = match elements.checked_mul(size) {
                Some(elements) if (1..=MAX_ELEMENTS).contains(&elements) => elements,
                _ => {
                    return self.refused(format!(
                        "is damaged: tensor {name} has a dimension of {size}; download it again"
                    ));
                }
            };
            shape.push(size as usize);
        }
        let cols = shape[0];
        shape.reverse();
        let id = self.u32(name)?;
        let Some(kind) = TensorType::of(id) else {
            return self.refused(format!(
                "tensor {name} has type {id}, which is unknown: convert the model to f16, q8_0, q4_0, q4_k or q6_k"
            ));
        };
        if !cols.is_multiple_of(kind.block) {
            let name_of = kind.name;
            return self.refused(format!(
                "is damaged: tensor {name} is {name_of}, and its rows of {cols} are not whole blocks of {}; download it again",
                kind.block
            ));
        }
        let offset = self.u64(name)?;
        if !offset.is_multiple_of(alignment) {
            return self.refused(format!(
                "is damaged: tensor {name} starts at {offset}, which is not a multiple of {alignment}; download it again"
            ));
        }
        let bytes = elements / kind.block as u64 * kind.bytes as u64;
        Ok((Tensor { shape, kind, start: offset }, bytes))
    }

    fn name(&mut self, what: &str) -> Result<String> {
        let bytes = self.u64(what)?;
        if bytes > MAX_NAME {
            return self.refused(format!(
                "is damaged: {what} has {bytes} bytes, more than the limit of {MAX_NAME}; download it again"
            ));
        }
        let mut name = vec![0; bytes.min(self.end - self.at) as usize];
        if (name.len() as u64) < bytes {
            return self.truncated(what, bytes);
        }
        self.fill(&mut name, what)?;
        match String::from_utf8(name) {
            Ok(name) => Ok(name),
            Err(_) => self.refused(format!("is damaged: {what} is not UTF-8 text; download it again")),
        }
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<()> {
        let wanted = bytes.len() as u64;
        if wanted > self.end - self.at {
            return self.truncated(what, wanted);
        }
        self.file.read_exact(bytes).map_err(Error::io("read", self.path))?;
        self.at += wanted;
        Ok(())
    }

    fn skip(&mut self, bytes: u64, what: &str) -> Result<()> {
        if bytes > self.end - self.at {
            return self.truncated(what, bytes);
        }
        self.file.seek_relative(bytes as i64).map_err(Error::io("read", self.path))?;
        self.at += bytes;
        Ok(())
    }

    fn truncated<T>(&self, what: &str, wanted: u64) -> Result<T> {
        let left = self.end - self.at;
        let why = match self.end < self.length {
            true => format!("is not a model file: its header has more than {} MiB", MAX_HEADER >> 20),
            false => format!(
                "is truncated or damaged: {what} needs {wanted} more bytes, but {left} are left; download it again"
            ),
        };
        self.refused(why)
    }
}
