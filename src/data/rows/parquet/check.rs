//! Validation of a Parquet file's metadata (sizes, counts and nesting of columns) before anything is allocated by it.
//!
//! ```text
//! PAR1 | pages of the columns' chunks, each after its header | footer | its length (4 bytes) | PAR1
//! ```

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::thrift::{Thrift, read};

/// Limits that are far above those of real datasets.
const LARGEST_FOOTER: u64 = 16 << 20;
const LARGEST_HEADER: u64 = 1 << 20;
const LARGEST_PAGE: i64 = 256 << 20;
const MOST_COLUMNS: usize = 4096;
const DEEPEST_COLUMN: usize = 32;

type Why = String;

/// Returns the size of the file, or an error if it could not be read within the limits.
pub(super) fn check(mut file: &File) -> Result<u64, Why> {
    let unreadable =
        |e: std::io::Error| format!("cannot be read ({e}): Parquet is read from a file, not from a pipe");
    let size = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    let damaged = |what: &str| format!("is a Parquet file {what}: it is truncated or damaged");
    if size < 12 {
        return Err(damaged("without an end"));
    }
    let mut end = [0; 8];
    file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut end)).map_err(unreadable)?;
    let (length, magic) = end.split_at(4);
    if magic == b"PARE" {
        return Err("is an encrypted Parquet file: decrypt it first".into());
    }
    let length = u64::from(u32::from_le_bytes(length.try_into().expect("four bytes")));
    if magic != b"PAR1" || length > size - 12 {
        return Err(damaged("without an end"));
    }
    if length > LARGEST_FOOTER {
        return Err(format!("has a footer of {} MiB, larger than that of any dataset", length >> 20));
    }
    let mut footer = vec![0; length as usize];
    file.seek(SeekFrom::Start(size - 8 - length))
        .and_then(|_| file.read_exact(&mut footer))
        .map_err(unreadable)?;
    let (footer, _) = read(&footer).ok_or_else(|| damaged("with a damaged footer"))?;
    let mut schema = footer.list(2).iter();
    let columns = schema.len();
    if columns > MOST_COLUMNS {
        return Err(format!("has {columns} columns, more than the supported {MOST_COLUMNS}"));
    }
    if !is_tree(&mut schema, 0) || schema.next().is_some() {
        return Err(damaged("whose schema is invalid or nested too deeply"));
    }
    for chunk in footer.list(4).iter().flat_map(|group| group.list(1)) {
        let chunk = chunk.field(3).ok_or_else(|| damaged("whose footer lacks the metadata of a column"))?;
        codec(chunk.number(4).unwrap_or(-1))?;
        check_pages(file, chunk, size - 8 - length).map_err(|what| damaged(&what))?;
    }
    Ok(size)
}

/// Returns an error for a compression that is not supported.
fn codec(codec: i64) -> Result<(), Why> {
    let name = match codec {
        // None, Snappy, gzip, Zstandard.
        0..=2 | 6 => return Ok(()),
        3 => "LZO",
        4 => "Brotli",
        5 | 7 => "LZ4",
        _ => "an unknown codec",
    };
    Err(format!("is compressed with {name}: write it again with snappy, zstd, gzip or no compression"))
}

/// Whether the next element of a schema and its children form a tree that is not too deep.
fn is_tree<'a>(elements: &mut impl Iterator<Item = &'a Thrift>, depth: usize) -> bool {
    let Some(element) = elements.next() else { return false };
    let children = element.number(5).unwrap_or(0);
    depth <= DEEPEST_COLUMN && children >= 0 && (0..children).all(|_| is_tree(elements, depth + 1))
}

/// Checks the headers of a chunk's pages, which must be before `end`.
fn check_pages(mut file: &File, chunk: &Thrift, end: u64) -> Result<(), String> {
    let (bytes, data) = (chunk.number(7).unwrap_or(-1), chunk.number(9).unwrap_or(-1));
    let start = chunk.number(11).filter(|offset| *offset > 0).map_or(data, |dictionary| dictionary.min(data));
    let inside = |number: i64| u64::try_from(number).ok().filter(|number| *number <= end);
    let (Some(mut at), Some(bytes)) = (inside(start), inside(bytes)) else {
        return Err("with a column outside the file".into());
    };
    let end = at.checked_add(bytes).filter(|chunk| *chunk <= end).ok_or("with a column outside the file")?;
    let mut head = Vec::new();
    while at < end {
        head.clear();
        let room = (end - at).min(LARGEST_HEADER);
        // Headers are short, except those with long statistics.
        let mut parsed = None;
        for length in [room.min(512), room] {
            let fill = file.seek(SeekFrom::Start(at)).and_then(|_| {
                head.resize(length as usize, 0);
                file.read_exact(&mut head)
            });
            fill.map_err(|e| format!("that cannot be read ({e})"))?;
            parsed = read(&head);
            if parsed.is_some() {
                break;
            }
        }
        let (header, length) = parsed.ok_or("with a damaged page")?;
        let (plain, packed) = (header.number(2).unwrap_or(-1), header.number(3).unwrap_or(-1));
        let dictionary = header.field(7).map_or(Some(0), |header| header.number(1)).unwrap_or(-1);
        if !(0..=LARGEST_PAGE).contains(&plain) {
            return Err(format!("with a page of {plain} bytes, above the limit of {LARGEST_PAGE}"));
        }
        // Each entry takes at least a byte, except for booleans, which have no dictionary.
        if !(0..=plain).contains(&dictionary) {
            return Err(format!("with a dictionary of {dictionary} entries in {plain} bytes"));
        }
        let next =
            u64::try_from(packed).ok().and_then(|packed| at.checked_add(length as u64)?.checked_add(packed));
        at = next.filter(|next| *next <= end).ok_or("with a page outside its column")?;
    }
    Ok(())
}
