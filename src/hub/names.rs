//! Names on the hub: repositories, revisions, commits, files and etags. Values of these types are safe to use in paths
//! and URLs.

use std::fmt::{self, Display, Write};

/// The longest name of a repository, revision or file that is accepted.
const LONGEST: usize = 512;

/// The content of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model or a LoRA adapter.
    Model,
    /// A dataset.
    Dataset,
}

/// A repository at a revision, such as `org/name@v1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    /// The content.
    pub kind: Kind,
    /// `org/name`.
    pub id: String,
    /// A branch, a tag, or the 40 digits of a commit; `main` by default.
    pub revision: String,
}

impl Repo {
    /// Parses `org/name` or `org/name@revision`. Returns `None` for text of another form.
    pub fn parse(kind: Kind, text: &str) -> Option<Repo> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (org, name) = id.split_once('/')?;
        let good = is_part(org) && is_part(name) && is_revision(revision);
        good.then(|| Repo { kind, id: id.to_owned(), revision: revision.to_owned() })
    }

    /// Returns the same repository at a commit.
    pub fn at(&self, commit: &Commit) -> Repo {
        Repo { revision: commit.0.clone(), ..self.clone() }
    }

    /// The name of its folder in the cache.
    pub(super) fn folder(&self) -> String {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        format!("{kind}--{}", self.id.replace('/', "--"))
    }
}

impl Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

/// Whether the text is valid as the name of an organisation or of a repository, by the hub's rules.
fn is_part(part: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    part.len() <= 96
        && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && part.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && part.chars().all(good)
        && !part.contains("--")
        && !part.contains("..")
}

/// Whether the text is valid as a revision, which becomes a path below `refs` in the cache.
fn is_revision(revision: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.+/".contains(c);
    let part = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !part.contains("..")
    };
    revision.len() <= LONGEST && revision.chars().all(good) && revision.split('/').all(part)
}

/// The id of one state of a repository: 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit(pub(super) String);

impl Commit {
    /// Parses a commit id; `None` if `text` is not one.
    pub(super) fn parse(text: &str) -> Option<Commit> {
        is_hexadecimal(text, 40).then(|| Commit(text.to_owned()))
    }
}

impl Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The hub's identifier for the content of a file. It is also the name of the content in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Etag(pub String);

impl Etag {
    /// Parses a header: quotes and the mark of a weak etag are removed. `None` if the result is not usable as a file
    /// name.
    pub fn parse(header: &str) -> Option<Etag> {
        let text = header.trim().trim_start_matches("W/").trim_matches('"');
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let named = !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.chars().all(good);
        // These suffixes have a meaning in the cache.
        (named && !text.ends_with(".incomplete") && !text.ends_with(".lock")).then(|| Etag(text.to_owned()))
    }
}

/// Why a file of this name is not accepted from a hub, if it is not.
pub(super) fn unsafe_name(name: &str) -> Option<&'static str> {
    let parts = || name.split('/');
    if name.is_empty() || name.len() > LONGEST || parts().any(str::is_empty) {
        // An absolute path has an empty first part.
        return Some("is an absolute path, empty or too long");
    }
    if parts().any(|part| part == ".." || part == ".") {
        return Some("leads out of its folder");
    }
    if name.contains('\\') || name.chars().any(char::is_control) {
        return Some("contains a backslash or a control character");
    }
    (cfg!(windows) && !parts().all(is_valid_on_windows)).then_some("is not a valid file name on Windows")
}

/// Whether Windows allows a file of this name.
fn is_valid_on_windows(name: &str) -> bool {
    // Device names are reserved with any extension.
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let is_port = ["COM", "LPT"]
        .iter()
        .any(|port| stem.strip_prefix(port).is_some_and(|number| matches!(number.as_bytes(), [b'1'..=b'9'])));
    let is_device = is_port || ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str());
    !is_device && !name.ends_with(['.', ' ']) && !name.contains([':', '<', '>', '"', '|', '?', '*'])
}

/// Percent-encodes a part of a URL's path: all bytes except letters, digits, `-._~` and, with `keep_slashes`, slashes.
pub(super) fn quoted(text: &str, keep_slashes: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slashes && byte == b'/');
        match plain {
            true => out.push(byte.into()),
            false => write!(out, "%{byte:02X}").expect("a String takes all"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_windows_reserves_are_known() {
        for name in ["CON", "nul.json", "com1.txt", "LPT9", "aux .bin", "a:b", "model.", "model "] {
            assert!(!is_valid_on_windows(name), "{name}");
        }
        for name in ["config.json", "console.json", "COM10", "com", "nullable.txt", ".gitattributes"] {
            assert!(is_valid_on_windows(name), "{name}");
        }
    }

    #[test]
    fn a_name_has_an_organisation_a_repository_and_optionally_a_revision() {
        let parse = |text| Repo::parse(Kind::Model, text).map(|repo| (repo.id, repo.revision));
        let found = |id: &str, revision: &str| Some((id.to_owned(), revision.to_owned()));
        assert_eq!(parse("Qwen/Qwen3-0.6B"), found("Qwen/Qwen3-0.6B", "main"));
        assert_eq!(parse("a/b@v1.0"), found("a/b", "v1.0"));
        assert_eq!(parse("a/b@refs/pr/1"), found("a/b", "refs/pr/1"));
        for text in [
            "gpt2",
            "",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "./a/b",
            "../b",
            "a/..",
            "~/b",
            "a/b@",
            "a/b@../c",
            "a/b@/c",
            "a/b@x..y",
            "a\\b",
            "a/b c",
            "a/b?c",
            "a/b#c",
            "a--b/c",
            "a/b\n",
            "a/.b",
            "a/b@\u{e9}",
            "a/b@c//d",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        let parsed = |text| Repo::parse(Kind::Dataset, text).unwrap().to_string();
        assert_eq!([parsed("a/b"), parsed("a/b@main"), parsed("a/b@c")], ["a/b", "a/b", "a/b@c"]);
        assert_eq!(Repo::parse(Kind::Dataset, "a/b").unwrap().folder(), "datasets--a--b");
    }

    #[test]
    fn unsafe_file_names_are_detected() {
        for name in
            ["model.safetensors", "data/train-00000-of-00001.jsonl", "a b.json", ".gitattributes", "été.json"]
        {
            assert_eq!(unsafe_name(name), None, "{name}");
        }
        for name in
            ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a\\b", "a\nb", "a\u{1b}[2J", "a\0"]
        {
            assert!(unsafe_name(name).is_some(), "{name:?}");
        }
        assert!(unsafe_name(&"x/".repeat(1000)).is_some());
    }

    #[test]
    fn an_etag_is_usable_as_a_file_name() {
        let etag = |header| Etag::parse(header).map(|etag| etag.0);
        assert_eq!(etag("\"abc\""), Some("abc".into()));
        assert_eq!(etag("W/\"5f-abc\""), Some("5f-abc".into()));
        for header in
            ["", "\"\"", "\"../x\"", "\"a/b\"", "\"a\\b\"", "\"..\"", "\".x\"", "\"x.incomplete\"", "\"a b\""]
        {
            assert_eq!(etag(header), None, "{header}");
        }
        assert_eq!(etag(&"a".repeat(129)), None);
    }

    #[test]
    fn special_characters_of_urls_are_quoted() {
        assert_eq!(quoted("a b/c?d#e%", true), "a%20b/c%3Fd%23e%25");
        assert_eq!(quoted("refs/pr/1", false), "refs%2Fpr%2F1");
    }
}
