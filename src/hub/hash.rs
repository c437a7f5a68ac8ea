//! The content hash in a file's etag.

use std::fmt::Write;
use std::io::Read;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::names::is_hexadecimal;

/// The expected hash of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// SHA-256 of the content, for files in large file storage (LFS).
    Sha256(String),
    /// SHA-1 of the content as a git blob, for all other files.
    GitBlob(String),
    /// The hash is unknown (as with the etags of a mirror), and only the size is checked.
    Nothing,
}

impl Expected {
    /// Recognises the type of a hash by its length.
    pub fn of(text: &str) -> Expected {
        match text {
            _ if is_hexadecimal(text, 64) => Expected::Sha256(text.to_owned()),
            _ if is_hexadecimal(text, 40) => Expected::GitBlob(text.to_owned()),
            _ => Expected::Nothing,
        }
    }

    /// Starts to hash content of `size` bytes.
    pub fn begin(&self, size: u64) -> Hasher {
        Hasher(match self {
            Expected::Sha256(_) => Some(Context::new(&SHA256)),
            Expected::GitBlob(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                Some(context)
            }
            Expected::Nothing => None,
        })
    }

    /// Whether the hash is the expected one.
    pub fn is(&self, hasher: Hasher) -> bool {
        let digest = hasher.0.map(|context| {
            context.finish().as_ref().iter().fold(String::new(), |mut out, byte| {
                write!(out, "{byte:02x}").expect("a String takes all");
                out
            })
        });
        match self {
            Expected::Sha256(hash) | Expected::GitBlob(hash) => digest.as_deref() == Some(hash),
            Expected::Nothing => true,
        }
    }
}

/// The state of hashing.
pub(super) struct Hasher(Option<Context>);

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(context) = &mut self.0 {
            context.update(bytes);
        }
    }

    /// Adds everything that is read from `input`.
    pub fn read(&mut self, mut input: impl Read) -> std::io::Result<()> {
        let mut chunk = vec![0; 1 << 20];
        loop {
            match input.read(&mut chunk)? {
                0 => return Ok(()),
                count => self.update(&chunk[..count]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_of_large_file_storage() {
        // `printf hello | git hash-object --stdin`, `printf hello | sha256sum`.
        let git = Expected::of("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0");
        let lfs = Expected::of("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        for (expected, size) in [(git, 5), (lfs, 5), (Expected::of("5f-abc"), 5)] {
            let mut hasher = expected.begin(size);
            hasher.update(b"hel");
            hasher.read(&b"lo"[..]).unwrap();
            assert!(expected.is(hasher), "{expected:?}");
        }
        let git = Expected::of("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0");
        assert!(!git.is(git.begin(5)));
    }
}
