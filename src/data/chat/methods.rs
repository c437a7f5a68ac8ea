//! Methods of Python's strings, lists and dictionaries that minijinja-contrib lacks.

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::python;

/// Calls `method` on `value`.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let known = match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => string(state, text, method, args)?,
        (ValueKind::Seq, _) => list(value, method, args)?,
        (ValueKind::Map, _) if method == "copy" => Some(value.clone()),
        _ => None,
    };
    match known {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn string(state: &mut State, text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "swapcase" => {
            let swap = |c: char| -> String {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "casefold" => Value::from(text.to_lowercase()),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "split" | "rsplit" => {
            let (separator, limit) = split_options(args)?;
            split(text, separator.as_deref(), limit, method == "rsplit")?
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let last = method == "rpartition";
            let found = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if last => ["", "", text],
                None => [text, "", ""],
            };
            Value::from(minijinja::value::Tuple::from(parts.map(Value::from)))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let zeros = padding(state, text, width)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            Value::from(format!("{sign}{}{digits}", "0".repeat(zeros)))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let count = padding(state, text, width)?;
            let before = match method {
                "ljust" => 0,
                "rjust" => count,
                _ => count / 2 + (count & width & 1),
            };
            let fill = |count| fill.unwrap_or(' ').to_string().repeat(count);
            Value::from(format!("{}{text}{}", fill(before), fill(count - before)))
        }
        "find" | "rfind" | "index" | "startswith" | "endswith" if args.len() > 1 || method == "index" => {
            let (what, start, end): (Value, Option<i64>, Option<i64>) = from_args(args)?;
            within(state, text, method, what, (start, end))?
        }
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            let mut out = String::new();
            for (at, item) in items.try_iter()?.enumerate() {
                let item = python::str(&item);
                state.consume_fuel(1 + (text.len() + item.len()) as u64 / 64)?;
                out.push_str(if at == 0 { "" } else { text });
                out.push_str(&item);
            }
            Value::from(out)
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
            let found = text.matches(old).count().min(count);
            state.consume_fuel((found.saturating_mul(new.len()) + text.len()) as u64 / 64)?;
            Value::from(text.replacen(old, new, count))
        }
        "format" => {
            bounded_widths(text)?;
            return Ok(None);
        }
        "isdecimal" => Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())),
        _ => return Ok(None),
    }))
}

/// Returns an error for a format string with a width so large that the result would fill the memory.
fn bounded_widths(format: &str) -> Result<(), Error> {
    const DIGITS: usize = 4;
    let (mut digits, mut within) = (0, false);
    for c in format.chars() {
        within = c == '{' || within && c != '}';
        digits = if within && c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > DIGITS {
            return Err(Error::new(ErrorKind::InvalidOperation, "a width of a format has too many digits"));
        }
    }
    Ok(())
}

/// The number of characters by which `text` is shorter than `width`.
fn padding(state: &mut State, text: &str, width: usize) -> Result<usize, Error> {
    let count = width.saturating_sub(text.chars().count());
    state.consume_fuel(count as u64 / 16)?;
    Ok(count)
}

fn split_options(args: &[Value]) -> Result<(Option<String>, Option<usize>), Error> {
    let (separator, limit, options): (Option<String>, Option<i64>, Kwargs) = from_args(args)?;
    let named: Option<String> = options.get("sep")?;
    let limit = limit.or(options.get("maxsplit")?);
    options.assert_all_used()?;
    Ok((separator.or(named), limit.and_then(|limit| usize::try_from(limit).ok())))
}

fn split(text: &str, separator: Option<&str>, limit: Option<usize>, right: bool) -> Result<Value, Error> {
    let limit = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut parts: Vec<&str> = match (separator, right) {
        (Some(""), _) => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        (Some(separator), false) => text.splitn(limit, separator).collect(),
        (Some(separator), true) => text.rsplitn(limit, separator).collect(),
        (None, right) => {
            let text = if right { text.trim_end_matches(space) } else { text.trim_start_matches(space) };
            let (mut rest, mut parts) = (text, Vec::new());
            while !rest.is_empty() {
                let cut = match parts.len() + 1 == limit {
                    true => None,
                    false if right => rest.rsplit_once(space).map(|(a, b)| (b, a.trim_end_matches(space))),
                    false => rest.split_once(space).map(|(a, b)| (a, b.trim_start_matches(space))),
                };
                let (part, more) = cut.unwrap_or((rest, ""));
                parts.push(part);
                rest = more;
            }
            parts
        }
    };
    if right {
        parts.reverse();
    }
    Ok(Value::from_iter(parts.into_iter().map(Value::from)))
}

/// Whether Python treats the character as white space.
pub(super) fn space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Calls `method` on the characters from `start` to `end`.
fn within(
    state: &mut State,
    text: &str,
    method: &str,
    what: Value,
    (start, end): (Option<i64>, Option<i64>),
) -> Result<Value, Error> {
    let count = text.chars().count();
    let place = |at: i64| if at < 0 { count.saturating_sub(at.unsigned_abs() as usize) } else { at as usize };
    let (start, end) = (start.map_or(0, place), end.map_or(count, place).min(count));
    let part: String = text.chars().take(end).skip(start).collect();
    if start > end {
        return Ok(if method.ends_with("with") { Value::from(false) } else { Value::from(-1) });
    }
    let name = if method == "index" { "find" } else { method };
    let found = pycompat::unknown_method_callback(state, &Value::from(part), name, &[what])?;
    match found.as_i64() {
        Some(-1) if method == "index" => Err(Error::new(ErrorKind::InvalidOperation, "substring not found")),
        Some(at) if !method.ends_with("with") && at >= 0 => Ok(Value::from(at + start as i64)),
        _ => Ok(found),
    }
}

fn list(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(match method {
        "copy" => Some(value.clone()),
        "index" => {
            let (what,): (Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == what);
            let at = at.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "is not in list"))?;
            Some(Value::from(at))
        }
        _ => None,
    })
}
