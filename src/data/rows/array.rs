//! A JSON array of rows, at the top level or as a list in an object. Only one row is in memory at a time.

use std::io::{BufRead, Read};
use std::path::PathBuf;

use super::column::Why;
use super::input::{Input, LONGEST, too_long, unreadable};
use super::json;
use super::reader::{Record, Records, place};
use crate::error::{Error, Result};

/// The keys of an object that may have the list of rows.
const NAMES: [&str; 5] = ["data", "rows", "train", "examples", "instances"];

/// The elements of an array, after its opening bracket.
pub(super) struct Elements {
    input: Box<dyn BufRead>,
    path: PathBuf,
    number: usize,
    ended: bool,
    /// Whether the array is inside an object, which continues after it.
    within: bool,
    bytes: Vec<u8>,
}

impl Elements {
    /// Returns the rows of an input that is such an array, or else the input.
    pub fn of(mut input: Input, path: PathBuf) -> Result<Elements, Input> {
        let within = !input.head.starts_with(b"[");
        let start = match within {
            false => 1,
            true => match list_in_object(&input) {
                Some(start) => start,
                None => return Err(input),
            },
        };
        if std::io::copy(&mut input.bytes.by_ref().take(start as u64), &mut std::io::sink()).is_err() {
            return Err(input);
        }
        let bytes = Vec::new();
        Ok(Elements { input: input.bytes, path, number: 0, ended: false, within, bytes })
    }

    fn failed(&self, number: usize, why: &str) -> Error {
        place(&self.path, number).error(self.describe(number, format!("not valid JSON: {why}")))
    }

    /// Reads the next element into `bytes`; returns false at the end of the array.
    fn read(&mut self) -> Result<bool> {
        self.bytes.clear();
        if self.ended {
            return self.ends();
        }
        let (mut depth, mut string, mut escaped) = (0usize, false, false);
        let number = self.number + 1;
        loop {
            let buffer = self.input.fill_buf().map_err(unreadable(&self.path))?;
            if buffer.is_empty() {
                return Err(self.failed(number, "the file ends before the end of the array: it is truncated"));
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
            self.bytes.extend(&buffer[..used - usize::from(end.is_some())]);
            self.input.consume(used);
            if self.bytes.len() > LONGEST {
                return Err(Error::file(&self.path, too_long("row")));
            }
            let empty = self.bytes.trim_ascii().is_empty();
            let Some(end) = end else { continue };
            self.ended = end == b']';
            if empty && self.ended && self.number == 0 {
                return self.ends();
            }
            if empty {
                return Err(self.failed(number, "there is nothing after the comma: remove it"));
            }
            self.number = number;
            return Ok(true);
        }
    }

    /// Returns false if the file ends correctly.
    fn ends(&mut self) -> Result<bool> {
        let mut last = None;
        loop {
            let buffer = self.input.fill_buf().map_err(unreadable(&self.path))?;
            if buffer.is_empty() {
                break;
            }
            let count = buffer.len();
            last = buffer.trim_ascii_end().last().copied().or(last);
            self.input.consume(count);
        }
        match (self.within, last) {
            (false, None) | (true, Some(b'}')) => Ok(false),
            (false, Some(_)) => {
                let why = "there is text after the end of the array: remove it, or write one object per line";
                Err(self.failed(self.number, why))
            }
            (true, _) => {
                Err(self.failed(self.number, "the file ends before the end of its object: it is truncated"))
            }
        }
    }
}

impl Records for Elements {
    fn next(&mut self) -> Result<Option<Record>> {
        if !self.read()? {
            return Ok(None);
        }
        Ok(Some(Record { line: self.number, row: json::row(&self.bytes) }))
    }

    fn describe(&self, number: usize, why: Why) -> Why {
        format!("element {number} of the array: {why}")
    }
}

/// Returns the start of the list, after its bracket, in a file that is one object with a list of rows, such as
/// `{"version": 1, "data": [{…}, …]}`. A row of JSON lines may look the same, but more rows follow it.
fn list_in_object(input: &Input) -> Option<usize> {
    let head = &input.head[..];
    let mut object = Scanner { bytes: head, at: 0 };
    object.skip(b'{')?;
    let start = loop {
        let key = object.string()?;
        object.skip(b':')?;
        let named = serde_json::from_slice(key).is_ok_and(|key: &str| NAMES.contains(&key));
        if named && object.peek() == Some(b'[') {
            object.skip(b'[')?;
            break (object.peek() == Some(b'{')).then_some(object.at)?;
        }
        object.scalar()?;
        object.skip(b',')?;
    };
    let mut lines = head.splitn(2, |byte| *byte == b'\n');
    let (first, rest) = (lines.next()?, lines.next());
    let complete = serde_json::from_slice::<serde::de::IgnoredAny>(first).is_ok();
    let followed = rest.is_some_and(|rest| !rest.trim_ascii().is_empty() || !input.is_whole());
    (!(complete && followed)).then_some(start)
}

/// A scanner of as much JSON as is needed to find a key.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Returns the next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.bytes[self.at..];
        self.at += rest.len() - rest.trim_ascii_start().len();
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Reads a string with its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        (self.peek()? == b'"').then_some(())?;
        let length = json::string_length(&self.bytes[self.at..]);
        let string = &self.bytes[self.at..self.at + length];
        self.at += length;
        Some(string)
    }

    /// Skips a value that is neither an object nor an array.
    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => drop(self.string()?),
            b'{' | b'[' => return None,
            _ => {
                let rest = &self.bytes[self.at..];
                self.at += rest.iter().position(|byte| b",}] \t\r\n".contains(byte))?;
            }
        }
        Some(())
    }
}
