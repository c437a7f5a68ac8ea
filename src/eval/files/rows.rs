//! Objects of a JSON array or of JSON Lines, each with the line where it starts.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files;

/// An object of a file.
pub(super) struct Row {
    pub path: PathBuf,
    /// The line at which it starts, counted from 1.
    pub line: usize,
    pub keys: Map<String, Value>,
}

/// Reads the objects of the file: those of a top-level array, or one per line. Fails if there are none.
pub(super) fn read(path: &Path) -> Result<Vec<Row>> {
    let text = files::read_text(path)?;
    parse(path, text.trim_start_matches('\u{feff}'))
}

fn parse(path: &Path, text: &str) -> Result<Vec<Row>> {
    let pieces = if text.trim_start().starts_with('[') { elements(path, text)? } else { lines(text) };
    if pieces.is_empty() {
        return Err(Error::file(path, "no rows: give a JSON array of objects, or one JSON object per line"));
    }
    pieces
        .into_iter()
        .map(|(line, piece)| match serde_json::from_str(piece) {
            Ok(Value::Object(keys)) => Ok(Row { path: path.to_owned(), line, keys }),
            Ok(_) => Err(row_error(path, line, "not a JSON object: give one {…} per row")),
            Err(e) => Err(row_error(path, line, format!("not JSON ({e}): correct or remove the row"))),
        })
        .collect()
}

fn lines(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty())
        .collect()
}

/// The elements of a top-level array, split at the commas outside strings and brackets.
fn elements<'a>(path: &Path, text: &'a str) -> Result<Vec<(usize, &'a str)>> {
    let mut found = Vec::new();
    let (mut depth, mut line, mut in_string, mut escaped) = (0usize, 1usize, false, false);
    let mut start: Option<(usize, usize)> = None;
    let mut closed = false;
    for (i, byte) in text.bytes().enumerate() {
        if byte == b'\n' {
            line += 1;
        }
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        if closed && !byte.is_ascii_whitespace() {
            return Err(row_error(
                path,
                line,
                "text after the array's end: keep one array, or one object per line",
            ));
        }
        if depth == 1 && start.is_none() && !byte.is_ascii_whitespace() && !matches!(byte, b',' | b']') {
            start = Some((line, i));
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                closed = depth == 0;
            }
            _ => {}
        }
        if ((depth == 1 && byte == b',') || closed)
            && let Some((line, begin)) = start.take()
        {
            found.push((line, text[begin..i].trim_end()));
        }
    }
    if closed {
        Ok(found)
    } else {
        Err(row_error(path, line, "the array has no end: the file is truncated, download or write it again"))
    }
}

pub(super) fn row_error(path: &Path, line: usize, why: impl Into<String>) -> Error {
    Error::Row { path: path.to_owned(), line, why: why.into() }
}

impl Row {
    pub fn error(&self, why: impl Into<String>) -> Error {
        row_error(&self.path, self.line, why)
    }

    /// The value of the key; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// A required text.
    pub fn text(&self, key: &str) -> Result<String> {
        self.optional_text(key)?.ok_or_else(|| self.error(format!("no {key:?}: add the key with its text")))
    }

    /// An optional text.
    pub fn optional_text(&self, key: &str) -> Result<Option<String>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.error(format!("{key:?} is {}: give a text", kind(other)))),
        }
    }

    /// The first of `keys` that is present, a text or a whole number, as text.
    pub fn id(&self, keys: [&str; 2]) -> Result<String> {
        for key in keys {
            match self.get(key) {
                None => {}
                Some(Value::String(text)) => return Ok(text.clone()),
                Some(Value::Number(number)) => return Ok(number.to_string()),
                Some(other) => {
                    return Err(self.error(format!("{key:?} is {}: give a number or a text", kind(other))));
                }
            }
        }
        Err(self.error(format!("no {:?}: add the key, it joins questions, answers and judgements", keys[0])))
    }

    /// An optional number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64()),
            Some(other) => Err(self.error(format!("{key:?} is {}: give a number", kind(other)))),
        }
    }

    /// A required list.
    pub fn list(&self, key: &str) -> Result<&Vec<Value>> {
        match self.get(key) {
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(self.error(format!("{key:?} is {}: give a list", kind(other)))),
            None => Err(self.error(format!("no {key:?}: add the key with its list"))),
        }
    }
}

/// The type of a value in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(text: &str) -> Result<Vec<usize>> {
        Ok(parse(Path::new("f.json"), text)?.iter().map(|row| row.line).collect())
    }

    #[test]
    fn rows_have_their_line_in_both_forms() {
        assert_eq!(starts("[\n {\"a\": \"],{\\\"\"},\n\n {\"a\": [1, {}]}\n]\n").unwrap(), [2, 4]);
        assert_eq!(starts("{\"a\": 1}\n\n{\"a\": 2}\n").unwrap(), [1, 3]);
        assert_eq!(starts("[{},{}]").unwrap(), [1, 1]);
    }

    #[test]
    fn a_damaged_file_names_the_line() {
        for (text, expected) in [
            ("[\n{\"a\": 1},\n{\"a\": ", "f.json:3: the array has no end"),
            ("{\"a\": 1}\n{\"a\": }", "f.json:2: not JSON"),
            ("[\n{\"a\": NaN}]", "f.json:2: not JSON"),
            ("{}\n3", "f.json:2: not a JSON object"),
            ("[{}] x", "f.json:1: text after the array's end"),
            (" \n", "f.json: no rows"),
            ("[]", "f.json: no rows"),
            ("[}", "f.json:1: not JSON"),
        ] {
            let error = starts(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn any_truncation_of_a_file_is_an_error() {
        let text = "[{\"a\": \"é\\\"\", \"b\": [1, {\"c\": null}]}, {\"a\": 2}]";
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            assert!(starts(&text[..end]).is_err(), "{end}");
        }
    }
}
