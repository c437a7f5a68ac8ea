//! A dataset's file, row by row: only one row of it is in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::Place;
use super::column::{Row, Why};
use super::json;
use crate::error::{Error, Result};

/// The longest row that is read.
const LONGEST: usize = 64 << 20;
/// Text compresses to a tenth. What is larger than `BOMB_BYTES` and was compressed to less than one in `BOMB_RATIO` is
/// refused, before it fills the memory.
const BOMB_BYTES: u64 = 256 << 20;
const BOMB_RATIO: u64 = 50;

/// What files begin with that are no JSON, and what they are.
const OTHERS: [(&[u8], &str); 9] = [
    (b"PAR1", "a Parquet file: convert it to JSON lines"),
    (b"ARROW1", "an Arrow file: convert it to JSON lines"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: decompress it first, or use gzip"),
    (b"BZh", "compressed by bzip2: decompress it first, or use gzip"),
    (b"\xfd7zXZ", "compressed by xz: decompress it first, or use gzip"),
    (b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
    (b"SQLite format 3", "a SQLite database: convert it to JSON lines"),
];

/// Every row of the file at `path`, as `parse` makes it.
pub(super) fn read_rows<T>(
    path: &Path,
    parse: impl Fn(&Row, Place) -> std::result::Result<T, Why>,
) -> Result<Vec<T>> {
    let mut input = open(path)?;
    let file: Arc<Path> = path.into();
    let place = |line| Place { file: Some(file.clone()), line };
    let mut rows = Vec::new();
    let parsed = |bytes: &[u8], line: usize| json::row(bytes).and_then(|row| parse(&row, place(line)));
    let mut line = 0;
    let mut bytes = Vec::new();
    let first = loop {
        line += 1;
        if !read_line(&mut *input, &mut bytes, path)? {
            break None;
        }
        match bytes.trim_ascii_start().first() {
            Some(&byte) => break Some(byte),
            None => continue,
        }
    };
    if first == Some(b'[') {
        let start = bytes.len() - bytes.trim_ascii_start().len();
        let begun = io::Cursor::new(bytes.split_off(start + 1));
        let mut elements = Elements { input: Box::new(begun.chain(input)), number: 0, ended: false, path };
        while elements.next(&mut bytes).map_err(|e| e.of(&place))? {
            let number = elements.number;
            let of_array = |why| place(number).error(format!("element {number} of the array: {why}"));
            rows.push(parsed(&bytes, number).map_err(of_array)?);
        }
    } else if first.is_some() {
        loop {
            if !bytes.trim_ascii().is_empty() {
                let row = parsed(&bytes, line);
                let row = row.map_err(|why| place(line).error(more_of(why, rows.is_empty(), &bytes)));
                rows.push(row?);
            }
            line += 1;
            if !read_line(&mut *input, &mut bytes, path)? {
                break;
            }
        }
    }
    if rows.is_empty() {
        return Err(place(1).error("the file has no rows: expected JSON lines or a JSON array"));
    }
    Ok(rows)
}

/// What a first row that cannot be used says of the whole file.
fn more_of(why: Why, first: bool, bytes: &[u8]) -> Why {
    if !first {
        return why;
    }
    let row = matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'"'));
    if !row && why.starts_with("not valid JSON") {
        return format!("{why}: is it a table (CSV, TSV) or plain text? Convert it to JSON lines");
    }
    match list_of_rows(bytes) {
        Some(name) => {
            format!("{why}; the rows seem to stand in \"{name}\": write that list alone, or a row a line")
        }
        None => why,
    }
}

/// The key of an object under which there is a list of rows.
fn list_of_rows(bytes: &[u8]) -> Option<&'static str> {
    const NAMES: [&str; 6] = ["data", "rows", "train", "examples", "instances", "items"];
    let object: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    NAMES.into_iter().find(|name| object[*name][0].is_object())
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::file(path, "is a folder: name a file of JSON lines in it"));
    }
    let mut input = BufReader::new(file);
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
    Ok(plain)
}

fn begins_with(input: &mut dyn BufRead, start: &[u8], path: &Path) -> Result<bool> {
    input.fill_buf().map(|bytes| bytes.starts_with(start)).map_err(unreadable(path))
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
fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |e| {
        let action = if e.kind() == io::ErrorKind::Other { "decompress" } else { "read" };
        Error::io(action, path)(e)
    }
}

/// The next line, without its end; false where there is none.
fn read_line(input: &mut dyn BufRead, bytes: &mut Vec<u8>, path: &Path) -> Result<bool> {
    bytes.clear();
    let limit = LONGEST as u64 + 1;
    let count = input.take(limit).read_until(b'\n', bytes).map_err(unreadable(path))?;
    if bytes.len() > LONGEST {
        return Err(Error::file(path, too_long("line")));
    }
    Ok(count > 0)
}

fn too_long(what: &str) -> String {
    format!("has a {what} of more than {} MiB: is it JSON lines or a JSON array?", LONGEST >> 20)
}

/// The elements of a JSON array, behind its bracket.
struct Elements<'a> {
    input: Box<dyn BufRead + 'a>,
    number: usize,
    ended: bool,
    path: &'a Path,
}

/// Why there is no next element.
enum NoElement {
    File(Error),
    Row(usize, &'static str),
}

impl NoElement {
    fn of(self, place: &impl Fn(usize) -> Place) -> Error {
        match self {
            NoElement::File(error) => error,
            NoElement::Row(number, why) => {
                place(number).error(format!("element {number} of the array: not valid JSON: {why}"))
            }
        }
    }
}

impl Elements<'_> {
    /// Reads the next element into `bytes`; false at the array's end.
    fn next(&mut self, bytes: &mut Vec<u8>) -> std::result::Result<bool, NoElement> {
        bytes.clear();
        if self.ended {
            return self.nothing_follows();
        }
        let (mut depth, mut string, mut escaped) = (0usize, false, false);
        let number = self.number + 1;
        loop {
            let buffer = self.input.fill_buf().map_err(unreadable(self.path)).map_err(NoElement::File)?;
            if buffer.is_empty() {
                return Err(NoElement::Row(number, "the file ends before the array does: is it cut off?"));
            }
            let mut end = None;
            let mut used = 0;
            for &byte in buffer {
                used += 1;
                if string {
                    string = escaped || byte != b'"';
                    escaped = !escaped && byte == b'\\';
                    continue;
                }
                match byte {
                    b'"' => string = true,
                    b'{' | b'[' => depth += 1,
                    b']' if depth == 0 => end = Some(byte),
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    b',' if depth == 0 => end = Some(byte),
                    _ => {}
                }
                if end.is_some() {
                    break;
                }
            }
            bytes.extend(&buffer[..used - usize::from(end.is_some())]);
            self.input.consume(used);
            if bytes.len() > LONGEST {
                return Err(NoElement::File(Error::file(self.path, too_long("row"))));
            }
            let empty = bytes.trim_ascii().is_empty();
            let Some(end) = end else { continue };
            self.ended = end == b']';
            if empty && self.ended && self.number == 0 {
                return self.nothing_follows();
            }
            if empty {
                return Err(NoElement::Row(number, "nothing stands behind the comma: remove it"));
            }
            self.number = number;
            return Ok(true);
        }
    }

    fn nothing_follows(&mut self) -> std::result::Result<bool, NoElement> {
        let mut rest = Vec::new();
        let read =
            (&mut self.input).take(LONGEST as u64).read_to_end(&mut rest).map_err(unreadable(self.path));
        read.map_err(NoElement::File)?;
        match rest.trim_ascii().is_empty() {
            true => Ok(false),
            false => Err(NoElement::Row(self.number, "something follows the array")),
        }
    }
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
