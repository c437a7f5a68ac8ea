//! A dataset's file as bytes: plain or gzip, told apart by content, and what is none.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// The longest row that is read.
pub(super) const LONGEST: usize = 64 << 20;
/// Text compresses to a tenth. What is larger than `BOMB_BYTES` and was compressed to less than one in `BOMB_RATIO` is
/// refused, before it fills the memory.
pub(super) const BOMB_BYTES: u64 = 256 << 20;
const BOMB_RATIO: u64 = 50;
/// What is looked at before a format is chosen.
const HEAD: u64 = 64 << 10;

/// What files begin with that are no rows, and what they are.
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

/// A file that has been opened.
pub(super) enum Opened {
    /// A Parquet file.
    Parquet(File),
    /// Text, decompressed.
    Text(Input),
}

/// Text, and what it begins with.
pub(super) struct Input {
    pub bytes: Box<dyn BufRead>,
    /// The first bytes of `bytes`, which still hold them.
    pub head: Vec<u8>,
    /// Lines that were passed over, having nothing in them.
    pub blank_lines: usize,
}

impl Input {
    /// Whether `head` is all there is.
    pub fn is_whole(&self) -> bool {
        self.head.len() < HEAD as usize
    }
}

/// Opens a file of rows.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::file(path, "is a folder: name a file of rows in it"));
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

/// Passes over white space; how many lines end in it.
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

/// Counts what is used of an input: a pipe does not say how long it is.
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

/// Decompression, up to what a dataset can be.
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
                "its first {} KiB hold more than {} MiB, over {BOMB_RATIO} times as much, which no dataset does: decompress \
                 it yourself if it is one",
                used >> 10,
                BOMB_BYTES >> 20
            );
            return Err(io::Error::other(why));
        }
        Ok(count)
    }
}

/// What [`Decompressed`] fails with is the only error of kind `Other`.
pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |e| {
        let action = if e.kind() == io::ErrorKind::Other { "decompress" } else { "read" };
        Error::io(action, path)(e)
    }
}

pub(super) fn too_long(what: &str) -> String {
    format!("has a {what} of more than {} MiB: are these rows?", LONGEST >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_compressed_dataset_is_read_whatever_says_how_long_it_is() {
        // One bit a letter, as a pipe gives it: without a size.
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
