//! Escapes untrusted text for the terminal.

use std::fmt::Write;

/// Escapes control characters, except newlines and tabs, and the marks that reorder text: names of files and columns and
/// texts of judges cannot move the cursor or hide a warning.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, |c, out| write!(out, "{}", c.escape_unicode()))
}

/// Escapes the same characters in a line of JSON. All are in the basic multilingual plane, and inside a string.
pub(crate) fn printable_json(line: &str) -> String {
    escaped(line, |c, out| write!(out, "\\u{:04x}", u32::from(c)))
}

fn escaped(text: &str, escape: impl Fn(char, &mut String) -> std::fmt::Result) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let reorders =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match reorders || c.is_control() && c != '\n' && c != '\t' {
            true => escape(c, &mut out).expect("a String takes all"),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\u{7}\rc\u{7f}\u{9b}31m"), r"a\u{1b}[2Jb\u{7}\u{d}c\u{7f}\u{9b}31m");
        assert_eq!(printable("name\u{202e}gpj.exe"), r"name\u{202e}gpj.exe");
        let plain = "one\n\ttwo: é 漢字 👩\u{200d}🚀 \"quoted\"";
        assert_eq!(printable(plain), plain);
    }

    #[test]
    fn a_line_of_json_stays_json() {
        let text = "a\u{1b}[2J\u{7f}\u{9b}\u{202e}gpj.exe \"é\"";
        let line = printable_json(&serde_json::json!({ "text": text }).to_string());
        assert!(line.contains(r"\u202egpj") && line.contains(r"\u001b"), "{line}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["text"], text);
    }
}
