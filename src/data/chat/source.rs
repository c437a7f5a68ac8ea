//! Preprocessing of a template's source before it is parsed.

/// The name of the filter that is put around the value of each `{% set … %}`; see [`super::bounds`].
pub(super) const HELD: &str = "__held";

/// The largest size in bytes; the longest public template has 20 KB.
const LONGEST: usize = 512 << 10;
/// The largest number of tokens in a tag; the longest in a public template has 60. The parser recurses for each token.
const TOKENS: usize = 1000;
/// The largest number of `elif` tags, for each of which the parser recurses.
const ELIFS: usize = 1000;
/// The deepest nesting of brackets.
const NESTED: usize = 50;

/// Converts the template to the form that minijinja parses: line ends as Jinja2 reads them, `{% generation %}` (which
/// marks the assistant's part for masking) as a plain scope, values of `{% set %}` wrapped in a check. The error says
/// which limit is exceeded.
pub(super) fn prepared(source: &str) -> Result<String, String> {
    if source.len() > LONGEST {
        return Err(format!("it has {} bytes, more than the limit of {LONGEST}", source.len()));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + 256);
    let mut elifs = 0;
    let mut rest = &source[..];
    while let Some(start) = next_tag(rest) {
        let (text, tag) = rest.split_at(start);
        out.push_str(text);
        let end = match tag.as_bytes()[1] {
            b'#' => tag.find("#}").map(|end| end + 2),
            b'%' => tag_end(tag, "%}")?,
            _ => tag_end(tag, "}}")?,
        };
        // The parser reports an unterminated tag.
        let (tag, after) = tag.split_at(end.unwrap_or(tag.len()));
        rest = after;
        if tag.starts_with("{#") || end.is_none() {
            out.push_str(tag);
            continue;
        }
        let tag = &as_python_reads(tag)[..];
        match if tag.starts_with("{%") { keyword(tag) } else { "" } {
            "generation" => out.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            "set" => out.push_str(&checked_set(tag)),
            "raw" => {
                out.push_str(tag);
                let end = end_of_raw(rest);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            keyword => {
                elifs += usize::from(keyword == "elif");
                out.push_str(tag);
            }
        }
    }
    if elifs > ELIFS {
        return Err(format!("it has {elifs} \"elif\" tags, more than the limit of {ELIFS}"));
    }
    out.push_str(rest);
    Ok(out)
}

fn next_tag(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

fn keyword(tag: &str) -> &str {
    let inside = tag[2..].trim_start_matches(['-', '+']).trim_start();
    inside.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Returns the end of `tag`, after its `close`, which does not count within strings and brackets.
fn tag_end(tag: &str, close: &str) -> Result<Option<usize>, String> {
    let (mut tokens, mut word, mut open) = (0, false, Vec::new());
    let mut at = 2;
    while let Some(c) = tag[at..].chars().next() {
        if open.is_empty() && tag[at..].starts_with(close) {
            return Ok(Some(at + close.len()));
        }
        let was_word = std::mem::replace(&mut word, c.is_alphanumeric() || c == '_');
        match c {
            '"' | '\'' => {
                let Some(length) = string_length(&tag[at..]) else { return Ok(None) };
                at += length;
                tokens += 1;
                continue;
            }
            '(' | '[' | '{' => open.push(c),
            ')' | ']' | '}' => {
                open.pop();
            }
            _ => {}
        }
        tokens += usize::from(!(c.is_whitespace() || word && was_word));
        if tokens > TOKENS || open.len() > NESTED {
            let start: String = tag.chars().take(40).collect();
            return Err(format!(
                "the tag that begins with {start:?} has more than {TOKENS} tokens or {NESTED} nested brackets"
            ));
        }
        at += c.len_utf8();
    }
    Ok(None)
}

/// The length in bytes of the string literal at the beginning of `text`.
fn string_length(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(start) = text[from..].find("{%").map(|start| from + start) {
        if keyword(&text[start..]) == "endraw" {
            return start;
        }
        from = start + 2;
    }
    text.len()
}

/// Replaces `\/` in the strings of a tag by `\\/`, since Python does not treat it as an escape.
fn as_python_reads(tag: &str) -> String {
    let (mut out, mut chars) = (String::with_capacity(tag.len()), tag.chars());
    while let Some(c) = chars.next() {
        out.push(c);
        if c == '\\'
            && let Some(next) = chars.next()
        {
            out.push_str(if next == '/' { "\\" } else { "" });
            out.push(next);
        }
    }
    out
}

/// Rewrites `{% set a = b %}` as `{% set a = (b)|held(false) %}`, with `true` if `a` is an attribute. Block sets are
/// unchanged.
fn checked_set(tag: &str) -> String {
    let end = tag.len() - 2 - usize::from(tag.ends_with("-%}") || tag.ends_with("+%}"));
    // A target has neither strings nor comparisons, but the filter of a block may.
    match tag[..end].split_once('=') {
        Some((target, value)) if !target.contains('|') => {
            let attribute = target.contains('.');
            format!("{target}=({value})|{HELD}({attribute}){}", &tag[end..])
        }
        _ => tag.to_owned(),
    }
}
