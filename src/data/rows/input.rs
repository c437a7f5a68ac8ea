//! The content of a dataset file, plain or gzip (detected by content), and the detection of other formats.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// The size of the longest row that is accepted.
pub(super) const LONGEST: usize = 64 << 20;
/// Text compresses to about a tenth. A file that decompresses to more than `BOMB_BYTES` and to more than `BOMB_RATIO`
/// times its size is rejected before it fills the memory.
pub(super) const BOMB_BYTES: u64 = 256 << 20;
const BOMB_RATIO: u64 = 50;
/// The number of bytes that are examined to choose a format.
const HEAD: u64 = 64 << 10;

/// The first bytes of files in unsupported formats, and a description of each.
const OTHERS: [(&[u8], &str); 9] = [
    (b"PAR1", "a Parquet file within another: decompress it first"),
    (b"ARROW1", "an Arrow file: convert it to Parquet or JSON lines"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: decompress it first, or use gzip"),
    (b"BZh", "compressed by bzip2: decompress it first, or use gzip"),
    (b"\xfd7zXZ", "compressed by xz: decompress it first, or use gzip"),
    (b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
    (b"SQLite format 3", "a SQLite database: convert it to JSON lines"),
];

/// An opened file.
pub(super) enum Opened {
    /// A Parquet file.
    Parquet(File),
    /// Text, after decompression.
    Text(Input),
}

/// Text and its beginning.
pub(super) struct Input {
    pub bytes: Box<dyn BufRead>,
    /// The first bytes; they are still to be read from `bytes`.
    pub head: Vec<u8>,
    /// The number of blank lines that were skipped at the beginning.
    pub blank_lines: usize,
}

impl Input {
    /// Whether `head` is the whole text.
    pub fn is_whole(&self) -> bool {
        self.head.len() < HEAD as usize
    }
}

/// Opens a file of rows.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::file(path, "is a folder: give a file of rows in it"));
    }
    let mut input = BufReader::new(file);
    if begins_with(&mut input, b"PAR1", path)? {
        return Ok(Opened::Parquet(input.into_inner()));
    }
    let mut plain: Box<dyn BufRead> = match begins_with(&mut input, b"\x1f\x8b", path)? {
        true => {
            let input = MultiGzDecoder::new(Counted { input, used: 0 });
            Box::new(BufReader::new(Decompressed { input, read: 0 }))
        }
        false => Box::new(input),
    };
    for (start, what) in OTHERS {
        if begins_with(&mut *plain, start, path)? {
            return Err(Error::file(path, format!("is {what}")));
        }
    }
    if begins_with(&mut *plain, b"\xef\xbb\xbf", path)? {
        plain.consume(3);
    }
    let blank_lines = skip_blank(&mut *plain).map_err(unreadable(path))?;
    let mut head = Vec::new();
    plain.by_ref().take(HEAD).read_to_end(&mut head).map_err(unreadable(path))?;
    let bytes = Box::new(Cursor::new(head.clone()).chain(plain));
    Ok(Opened::Text(Input { bytes, head, blank_lines }))
}

fn begins_with(input: &mut dyn BufRead, start: &[u8], path: &Path) -> Result<bool> {
    input.fill_buf().map(|bytes| bytes.starts_with(start)).map_err(unreadable(path))
}

/// Skips white space, and returns the number of lines that end in it.
fn skip_blank(input: &mut dyn BufRead) -> io::Result<usize> {
    let mut lines = 0;
    loop {
        let bytes = input.fill_buf()?;
        let blank = bytes.len() - bytes.trim_ascii_start().len();
        lines += bytes[..blank].iter().filter(|byte| **byte == b'\n').count();
        let more = blank > 0 && blank == bytes.len();
        input.consume(blank);
        if !more {
            return Ok(lines);
        }
    }
}

/// Counts the bytes that are read from an input, since the size of a pipe is unknown.
struct Counted<R> {
    input: R,
    used: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(into)?;
        self.used += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.used += count as u64;
        self.input.consume(count);
    }
}

/// A decompressed input with a limit on the compression ratio.
struct Decompressed<R> {
    input: MultiGzDecoder<Counted<R>>,
    read: u64,
}

impl<R: BufRead> Read for Decompressed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(into).map_err(io::Error::other)?;
        self.read += count as u64;
        let used = self.input.get_ref().used;
        if self.read > BOMB_BYTES && self.read / BOMB_RATIO > used {
            let why = format!(
                "its first {} KiB decompress to more than {} MiB, over {BOMB_RATIO} times as much: decompress \
                 it first if it is a dataset",
                used >> 10,
                BOMB_BYTES >> 20
            );
            return Err(io::Error::other(why));
        }
        Ok(count)
    }
}

/// Errors of [`Decompressed`] are the only ones of the kind `Other`.
pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |e| {
        let action = if e.kind() == io::ErrorKind::Other { "decompress" } else { "read" };
        Error::io(action, path)(e)
    }
}

pub(super) fn too_long(what: &str) -> String {
    format!("has a {what} of more than {} MiB: check that it has rows", LONGEST >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_compressed_dataset_of_unknown_size_is_read() {
        // One bit per letter; like a pipe, the input has no size.
        let mut state = 1u32;
        let letters = (0..1 << 20).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 31 == 0 { b'a' } else { b'b' }
        });
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &letters.collect::<Vec<u8>>()).unwrap();
        let members = gzip.finish().unwrap().repeat((BOMB_BYTES >> 20) as usize + 1);
        let input = MultiGzDecoder::new(Counted { input: &members[..], used: 0 });
        let mut input = Decompressed { input, read: 0 };
        assert_eq!(io::copy(&mut input, &mut io::sink()).unwrap(), BOMB_BYTES + (1 << 20));
        assert_eq!(input.input.get_ref().used, members.len() as u64);
    }
}
