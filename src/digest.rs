//! Digests of files and values, which show whether something has changed. They detect damage and mix-ups, not forgery.

use std::fmt::Display;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::files;

/// 64 bits of XXH3, in hexadecimal digits. Hashing is as fast as memory, so the cost of a digest is that of reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of the content of a file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of_file(path: &Path) -> Result<Digest> {
        let mut digester = Digester::default();
        digester.file(path)?;
        Ok(digester.finish())
    }
}

impl Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The state of computing a [`Digest`].
#[derive(Default)]
pub struct Digester(Box<Xxh3>);

impl Digester {
    /// Adds bytes with their length, so that the boundaries between calls affect the digest.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds token ids with their number.
    pub fn ids(&mut self, ids: &[u32]) {
        self.bytes(bytemuck::cast_slice(ids));
    }

    /// Adds the content of a file with its size.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let (mut file, _) = files::open(path)?;
        let mut chunk = vec![0; 1 << 20];
        let mut size = 0u64;
        loop {
            match file.read(&mut chunk).map_err(Error::io("read", path))? {
                0 => break,
                n => {
                    self.0.update(&chunk[..n]);
                    size += n as u64;
                }
            }
        }
        self.0.update(&size.to_le_bytes());
        Ok(())
    }

    /// The digest of everything added so far.
    pub fn finish(&self) -> Digest {
        Digest(format!("{:016x}", self.0.digest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[u8]]) -> Digest {
        let mut digester = Digester::default();
        parts.iter().for_each(|part| digester.bytes(part));
        digester.finish()
    }

    #[test]
    fn a_digest_depends_on_the_content_and_on_its_division_into_parts() {
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"abc"]), of(&[b"abd"]));
        assert_eq!(of(&[]).to_string().len(), 16);
    }

    #[test]
    fn a_files_digest_depends_on_every_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut bytes = vec![7u8; 3 << 20];
        std::fs::write(&path, &bytes).unwrap();
        let before = Digest::of_file(&path).unwrap();
        bytes[2 << 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_ne!(Digest::of_file(&path).unwrap(), before);
        assert!(Digest::of_file(&dir.path().join("b")).unwrap_err().to_string().contains("cannot read"));
    }
}
