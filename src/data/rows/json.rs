//! JSON as Python writes it, with NaN, Infinity and lone surrogates.

use serde_json::Value;

use super::column::{Row, Why, kind_of};

const NAN: &str = "a number that is not finite (NaN or Infinity), which JSON cannot represent";
const HALF: &str = "half of a surrogate pair (\\ud800 to \\udfff), which is not valid text";

/// Parses a row. Values that only Python accepts as JSON make their column unusable, but not the row.
pub(super) fn row(bytes: &[u8]) -> Result<Row, Why> {
    let (value, unusable) = match serde_json::from_slice(bytes) {
        Ok(value) => (value, Vec::new()),
        Err(e) => {
            let (cleaned, unusable) = cleaned(bytes);
            match serde_json::from_slice(&cleaned) {
                Ok(value) if !unusable.is_empty() => (value, unusable),
                _ => return Err(not_json(&e)),
            }
        }
    };
    match value {
        Value::Object(columns) => Ok(Row::new(columns, unusable)),
        other => Err(format!("is {}, expected an object such as {{\"prompt\": \"…\"}}", kind_of(&other))),
    }
}

/// The line number of serde_json is dropped, since it counts within the row.
fn not_json(e: &serde_json::Error) -> Why {
    let message = e.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    let more = if e.is_eof() {
        ": the row may be truncated, or may span several lines (JSON lines have one row per line)"
    } else {
        ""
    };
    format!("not valid JSON: {what} at column {}{more}", e.column())
}

/// Removes from `bytes` what only Python accepts as JSON, and returns the columns that had it.
fn cleaned(bytes: &[u8]) -> (Vec<u8>, Vec<(String, &'static str)>) {
    let (mut out, mut unusable) = (Vec::with_capacity(bytes.len()), Vec::new());
    let (mut depth, mut column, mut at) = (0, String::new(), 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let number =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| rest.starts_with(word.as_bytes()));
        if rest[0] == b'"' {
            let length = string_length(rest);
            let (string, half) = without_halves(&rest[..length]);
            let is_key = depth == 1 && rest[length..].trim_ascii_start().starts_with(b":");
            if is_key {
                column = serde_json::from_slice(&string).unwrap_or_default();
            }
            if half {
                unusable.push((column.clone(), HALF));
            }
            out.extend(string);
            at += length;
        } else if let Some(word) = number {
            unusable.push((column.clone(), NAN));
            out.extend(b"null");
            at += word.len();
        } else {
            match rest[0] {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            out.push(rest[0]);
            at += 1;
        }
    }
    (out, unusable)
}

/// The length in bytes of the string at the beginning of `bytes`.
pub(super) fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Replaces lone surrogates of a JSON string by U+FFFD, and returns whether there were any.
fn without_halves(string: &[u8]) -> (Vec<u8>, bool) {
    let unit = |at: usize| {
        let digits = string.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut out, mut any, mut at) = (Vec::with_capacity(string.len()), false, 0);
    while at < string.len() {
        let length = match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                any = true;
                out.extend("\u{fffd}".bytes());
                at += 6;
                continue;
            }
            Some(_) => 6,
            None if string[at] == b'\\' => 2,
            None => 1,
        };
        let end = string.len().min(at + length);
        out.extend(&string[at..end]);
        at = end;
    }
    (out, any)
}
