//! Selection of modules by name as in PEFT's configurations: by Python regular expressions, full names, or suffixes.

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

/// The number of backtracking steps on one name after which matching fails.
const MAX_BACKTRACKS: usize = 10_000;

/// A selection: all projections, those whose full name matches, or those whose full name or suffix is listed.
#[derive(Debug)]
pub(super) enum Modules {
    AllLinear,
    Matching(Regex),
    Named(Vec<String>),
}

impl Modules {
    /// Parses the value of `key`: a list of names or a regular expression.
    pub fn from_json(key: &str, value: &Value) -> Result<Modules, String> {
        match value {
            Value::String(text) if text.to_lowercase() == "all-linear" => Ok(Modules::AllLinear),
            Value::String(text) => Ok(Modules::Matching(regex(key, &format!(r"\A(?:{text})\z"))?)),
            Value::Array(names) => {
                let name = |name: &Value| name.as_str().map(str::to_owned);
                let names = names.iter().map(name).collect::<Option<Vec<_>>>();
                names.map(Modules::Named).ok_or_else(|| format!("{key} has an entry that is not a name"))
            }
            _ => Err(format!("{key} must be a list of names, or a regular expression")),
        }
    }

    /// Whether a module is selected.
    pub fn contain(&self, module: &str) -> Result<bool, String> {
        Ok(match self {
            Modules::AllLinear => true,
            Modules::Matching(pattern) => is_match(pattern, module)?,
            Modules::Named(names) => {
                let ends =
                    |name: &String| module.strip_suffix(name.as_str()).is_some_and(|m| m.ends_with('.'));
                names.iter().any(|name| name == module || ends(name))
            }
        })
    }
}

/// Returns the value of the first pattern that matches.
pub(super) fn matched<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Result<Option<T>, String> {
    for (pattern, value) in patterns {
        if is_match(pattern, module)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// Compiles the regular expression in the value of `key`.
pub(super) fn regex(key: &str, pattern: &str) -> Result<Regex, String> {
    // The parser is recursive; real patterns are shorter.
    if pattern.len() > 4096 {
        return Err(format!(
            "{key} holds a regular expression of {} bytes, expected 4096 or less",
            pattern.len()
        ));
    }
    let built = RegexBuilder::new(pattern).backtrack_limit(MAX_BACKTRACKS).build();
    built.map_err(|e| format!("{key} has a regular expression that is not supported ({e})"))
}

fn is_match(pattern: &Regex, module: &str) -> Result<bool, String> {
    pattern
        .is_match(module)
        .map_err(|e| format!("a regular expression cannot be matched with {module} ({e})"))
}

/// Whether one of the patterns matches.
pub(super) fn any(patterns: &[Regex], module: &str) -> Result<bool, String> {
    for pattern in patterns {
        if is_match(pattern, module)? {
            return Ok(true);
        }
    }
    Ok(false)
}
