//! Errors about an unknown name that suggest the name that was probably meant.

use crate::error::Error;

/// An [`Error::Config`] about `what`: `found` is not one of `known`.
pub(crate) fn unknown(what: &str, found: &str, known: &[&str]) -> Error {
    let hint = did_you_mean(found, known);
    Error::config(what, format!("{found:?} is unknown{hint}; known are {}", known.join(", ")))
}

/// The suggestion of the nearest name, in brackets after a space; empty if none is near.
pub(crate) fn did_you_mean(found: &str, known: &[&str]) -> String {
    nearest(found, known).map(|name| format!(" (did you mean {name:?}?)")).unwrap_or_default()
}

/// The name in `known` that was probably meant by `found`: the one with the smallest edit distance, if that is at most
/// a third of its length (or 1). The argument of a name, after a colon, is not compared.
pub(crate) fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = found.to_lowercase();
    let (distance, name) =
        known.iter().map(|name| (edits(&found, bare(name)), *name)).min_by_key(|(d, _)| *d)?;
    (distance <= (bare(name).chars().count() / 3).max(1)).then_some(name)
}

/// The part before the colon: `contains` of `contains:REGEX`.
pub(crate) fn bare(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// The Levenshtein distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_insertions_deletions_and_replacements() {
        for (a, b, distance) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)] {
            assert_eq!((edits(a, b), edits(b, a)), (distance, distance), "{a} {b}");
        }
    }

    #[test]
    fn a_typo_gets_a_suggestion_and_any_unknown_name_the_list() {
        let known = ["linear", "cosine"];
        assert_eq!(nearest("Cosin", &known), Some("cosine"));
        assert_eq!(nearest("contain", &["more:REGEX", "contains:REGEX"]), Some("contains:REGEX"));
        assert_eq!(nearest("polynomial", &known), None);
        assert_eq!(nearest("cosine", &[]), None);
        let error = unknown("schedule", "linaer", &known).to_string();
        assert_eq!(
            error,
            r#"schedule: "linaer" is unknown (did you mean "linear"?); known are linear, cosine"#
        );
    }
}
