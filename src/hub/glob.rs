//! Glob patterns of paths, as in dataset cards: `*` and `?` within a folder, `**` across folders, `[0-9]`.

/// Whether `path` matches `pattern`. The time is at most the product of their lengths.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let path: Vec<char> = path.chars().collect();
    // The prefixes of the path that match the parts of the pattern so far.
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for part in parts(pattern) {
        let mut next = vec![false; path.len() + 1];
        for at in 0..=path.len() {
            let step = at > 0 && part.takes(path[at - 1]);
            next[at] = match part {
                Part::One(_) => step && reached[at - 1],
                Part::Any { .. } => reached[at] || (step && next[at - 1]),
            };
        }
        reached = next;
    }
    reached[path.len()]
}

/// Whether `text` is a pattern and not a plain name.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

enum Part {
    One(Vec<Span>),
    Any { folders: bool },
}

/// A range of characters, inclusive.
type Span = (char, char);

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Part::One(spans) => spans.iter().any(|(from, to)| (*from..=*to).contains(&c)),
            Part::Any { folders } => *folders || c != '/',
        }
    }
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let behind = &rest[c.len_utf8()..];
        (rest, parts) = match c {
            // "**/" also matches no folder.
            '*' if behind.starts_with("*/") => (&behind[2..], pushed(parts, Part::Any { folders: true })),
            '*' if behind.starts_with('*') => (&behind[1..], pushed(parts, Part::Any { folders: true })),
            '*' => (behind, pushed(parts, Part::Any { folders: false })),
            '?' => (behind, pushed(parts, Part::One(vec![('\0', '.'), ('0', char::MAX)]))),
            '[' => match behind.split_once(']') {
                Some((class, after)) if !class.is_empty() => (after, pushed(parts, Part::One(spans(class)))),
                _ => (behind, pushed(parts, Part::One(vec![(c, c)]))),
            },
            c => (behind, pushed(parts, Part::One(vec![(c, c)]))),
        };
    }
    parts
}

fn pushed(mut parts: Vec<Part>, part: Part) -> Vec<Part> {
    parts.push(part);
    parts
}

fn spans(class: &str) -> Vec<Span> {
    let chars: Vec<char> = class.chars().collect();
    let mut spans = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let to = (chars.get(at + 1) == Some(&'-')).then(|| chars.get(at + 2)).flatten();
        spans.push((chars[at], *to.unwrap_or(&chars[at])));
        at += if to.is_some() { 3 } else { 1 };
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_on_the_hub() {
        for (pattern, path, expected) in [
            ("data/train-*", "data/train-00000-of-00001.parquet", true),
            ("data/train-*", "data/train-0/x.parquet", false),
            ("data/train-*", "data/train_sft-0.parquet", false),
            ("**/train*", "a/b/train.jsonl.gz", true),
            ("**/train*", "train.jsonl.gz", true),
            ("*/train.jsonl.gz", "helpful-base/train.jsonl.gz", true),
            ("*/train.jsonl.gz", "a/b/train.jsonl.gz", false),
            ("train-[0-9][0-9].csv", "train-07.csv", true),
            ("train-[0-9][0-9].csv", "train-7a.csv", false),
            ("é?.json", "éa.json", true),
            ("a?b", "a/b", false),
            ("a[b", "a[b", true),
            ("**", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    }
}
