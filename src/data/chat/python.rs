//! Values formatted as in Python.

use std::fmt::Write;
use std::sync::LazyLock;

use minijinja::Value;
use minijinja::value::{ObjectRepr, ValueKind};
use regex::Regex;

/// Python's `str(value)`; empty for an undefined value, as in Jinja2.
pub(super) fn str(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => repr(value),
    }
}

/// Python's `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, &mut out);
    out
}

fn write_repr(value: &Value, out: &mut String) {
    if let Some(text) = value.as_str() {
        return write_quoted(text, out);
    }
    if value.kind() == ValueKind::Number && !value.is_integer() {
        return out.push_str(&float(f64::try_from(value.clone()).unwrap_or(f64::NAN)));
    }
    if value.is_undefined() {
        return out.push_str("Undefined");
    }
    let sequence = |out: &mut String, open, items: &mut dyn Iterator<Item = Value>| {
        out.push(open);
        let mut count = 0;
        for item in items {
            if count > 0 {
                out.push_str(", ");
            }
            write_repr(&item, out);
            count += 1;
        }
        count
    };
    match value.as_object() {
        Some(object) if object.repr() == ObjectRepr::Map => {
            out.push('{');
            for (at, (key, item)) in object.try_iter_pairs().into_iter().flatten().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                write_repr(&key, out);
                out.push_str(": ");
                write_repr(&item, out);
            }
            out.push('}');
        }
        Some(object) if object.repr() == ObjectRepr::Seq => {
            let mut items = object.try_iter().into_iter().flatten();
            if value.is_tuple() {
                let count = sequence(out, '(', &mut items);
                out.push_str(if count == 1 { ",)" } else { ")" });
            } else {
                sequence(out, '[', &mut items);
                out.push(']');
            }
        }
        _ => write!(out, "{value}").expect("a string takes all"),
    }
}

fn write_quoted(text: &str, out: &mut String) {
    static UNPRINTABLE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[\p{C}\p{Zl}\p{Zp}\p{Zs}--\x20]").expect("a valid pattern"));
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    let plain = !UNPRINTABLE.is_match(text);
    let mut one = [0; 4];
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if plain || !UNPRINTABLE.is_match(c.encode_utf8(&mut one)) => out.push(c),
            c => {
                let code = c as u32;
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Python's `repr` of a float: the fewest digits that read back as the same number.
pub(super) fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan".to_owned()
        } else if number > 0.0 {
            "inf".to_owned()
        } else {
            "-inf".to_owned()
        };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("so Rust writes it");
    let exponent: i32 = exponent.parse().expect("a number");
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
