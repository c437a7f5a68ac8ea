//! Encoded rows: the last ones in memory, the others in an unnamed temporary file, which disappears with the process.
//! For each row, only its offset in the file (eight bytes) is in memory.
//!
//! ```text
//! responses R, prompt length, R lengths | prompt ids | ids of each response | text       u32 little-endian, UTF-8
//! ```

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::data::packing::Tree;
use crate::error::{Error, Result};

/// The size of the rows kept in memory, in bytes. In a browser, which has no temporary files, all rows are kept.
const IN_MEMORY: usize = if cfg!(target_arch = "wasm32") { usize::MAX } else { 32 << 20 };

/// Rows in the order in which they were added.
#[derive(Debug)]
pub(super) struct RowStore {
    /// The start of each row, and the end of the last.
    offsets: Vec<u64>,
    /// The rows that are not in the file.
    memory: Vec<u8>,
    /// The number of bytes in the file.
    written: u64,
    file: Option<Mutex<File>>,
    /// The folder for the file.
    folder: PathBuf,
    in_memory: usize,
}

impl RowStore {
    /// A store whose file is created in `folder`, or in the system's temporary folder if that does not exist.
    pub fn new(folder: &Path) -> RowStore {
        RowStore {
            offsets: vec![0],
            memory: Vec::new(),
            written: 0,
            file: None,
            folder: folder.to_owned(),
            in_memory: IN_MEMORY,
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn push(&mut self, tree: &Tree, text: &str) -> Result<()> {
        let lengths = [tree.responses.len(), tree.prompt.len()].into_iter();
        for length in lengths.chain(tree.responses.iter().map(Vec::len)) {
            self.memory.extend((length as u32).to_le_bytes());
        }
        for id in tree.prompt.iter().chain(tree.responses.iter().flatten()) {
            self.memory.extend(id.to_le_bytes());
        }
        self.memory.extend(text.as_bytes());
        self.offsets.push(self.written + self.memory.len() as u64);
        if self.memory.len() > self.in_memory { self.spill() } else { Ok(()) }
    }

    /// The folder in which the file is created.
    fn place(&self) -> PathBuf {
        match self.folder.ancestors().find(|dir| dir.is_dir()) {
            Some(dir) if dir.parent().is_some() => dir.to_owned(),
            // A relative path starts at the current directory. Nothing is written to the root directory.
            _ if self.folder.is_relative() && self.folder != Path::new("") => PathBuf::from("."),
            _ => std::env::temp_dir(),
        }
    }

    /// Moves the rows in memory to the file.
    fn spill(&mut self) -> Result<()> {
        if self.file.is_none() {
            self.folder = self.place();
        }
        let file = match &mut self.file {
            Some(file) => file.get_mut().unwrap_or_else(PoisonError::into_inner),
            None => {
                let created = tempfile::tempfile_in(&self.folder).or_else(|_| tempfile::tempfile());
                let created = created.map_err(Error::io("create a temporary file in", &self.folder))?;
                let file = self.file.insert(Mutex::new(created));
                file.get_mut().unwrap_or_else(PoisonError::into_inner)
            }
        };
        file.write_all(&self.memory)
            .map_err(Error::io("write encoded rows to a temporary file in", &self.folder))?;
        self.written += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// The bytes of a row.
    fn bytes(&self, row: usize) -> Result<Vec<u8>> {
        let (start, end) = (self.offsets[row], self.offsets[row + 1]);
        match &self.file {
            Some(file) if start < self.written => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let mut bytes = vec![0; (end - start) as usize];
                let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
                read.map_err(Error::io("read encoded rows from a temporary file in", &self.folder))?;
                Ok(bytes)
            }
            _ => Ok(self.memory[(start - self.written) as usize..(end - self.written) as usize].to_vec()),
        }
    }

    /// The tokens of a row and its text.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn get(&self, row: usize) -> Result<(Tree, String)> {
        let bytes = self.bytes(row)?;
        let damaged = || {
            let source = io::Error::other("the data differs from what was written");
            Error::Io {
                action: "read encoded rows from a temporary file in",
                path: self.folder.clone(),
                source,
            }
        };
        Words { bytes: &bytes }.row().ok_or_else(damaged)
    }
}

/// The unread bytes of a row.
struct Words<'a> {
    bytes: &'a [u8],
}

impl Words<'_> {
    fn row(&mut self) -> Option<(Tree, String)> {
        let responses = self.number()?;
        let lengths = (0..=responses).map(|_| self.number()).collect::<Option<Vec<_>>>()?;
        let mut texts = lengths.into_iter().map(|length| self.ids(length)).collect::<Option<Vec<_>>>()?;
        let responses = texts.split_off(1);
        let text = String::from_utf8(self.bytes.to_vec()).ok()?;
        Some((Tree { prompt: texts.pop()?, responses }, text))
    }

    fn number(&mut self) -> Option<usize> {
        let (word, rest) = self.bytes.split_first_chunk::<4>()?;
        self.bytes = rest;
        Some(u32::from_le_bytes(*word) as usize)
    }

    fn ids(&mut self, count: usize) -> Option<Vec<u32>> {
        let (words, rest) = self.bytes.split_at_checked(count.checked_mul(4)?)?;
        self.bytes = rest;
        let id = |word: &[u8]| u32::from_le_bytes(word.try_into().expect("four bytes"));
        Some(words.chunks_exact(4).map(id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_back_from_memory_and_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for in_memory in [0, 100, 1 << 20] {
            let mut store = RowStore { in_memory, ..RowStore::new(&dir.path().join("run/not/yet")) };
            let row = |i: u32| {
                let responses =
                    (0..i % 3).map(|r| (0..r * 7 + i % 5).map(|t| t + 70_000 * r).collect()).collect();
                (
                    Tree { prompt: (i..2 * i).collect(), responses },
                    if i.is_multiple_of(2) { "é".repeat(i as usize) } else { String::new() },
                )
            };
            for i in 0..50 {
                let (tree, text) = row(i);
                store.push(&tree, &text).unwrap();
            }
            assert_eq!(store.len(), 50);
            for i in (0..50).rev().chain(0..50) {
                assert_eq!(store.get(i as usize).unwrap(), row(i), "row {i}, {in_memory} bytes in memory");
            }
            assert_eq!(store.file.is_some(), in_memory < 1 << 20);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a file is left behind");
        }
    }
}
