//! Downloads models and datasets from the Hugging Face Hub, with a progress line.

use std::path::{Path, PathBuf};

use super::{SCHEME, What, is_file_of_rows};
use crate::cli::console::Download;
use crate::error::{Error, Result};
use crate::hub::{Hub, Kind, Repo, Settings, Wanted};

/// Whether `text` has the form of a name: ORG/NAME, optionally with @REVISION and, for rows, :SPLIT.
pub fn has_form(what: What, text: &str) -> bool {
    parse(what, text).is_some()
}

fn parse(what: What, text: &str) -> Option<(Repo, Wanted)> {
    let wanted = match what {
        What::Model => Wanted::Model,
        What::ModelWithoutWeights => Wanted::ModelWithoutWeights,
        What::Adapter => Wanted::Adapter,
        What::Rows => {
            let (name, split) =
                text.split_once(':').map_or((text, None), |(name, split)| (name, Some(split)));
            if is_file_of_rows(name) || split == Some("") {
                return None;
            }
            return Some((Repo::parse(Kind::Dataset, name)?, Wanted::Rows(split.map(str::to_owned))));
        }
    };
    Some((Repo::parse(Kind::Model, text)?, wanted))
}

/// Downloads `given`. Returns its folder or files, and its name with the commit as revision.
pub fn fetch(flag: &str, what: What, given: &Path) -> Result<(Vec<PathBuf>, String)> {
    let text = given.to_str().expect("a name is text");
    let name = text.strip_prefix(SCHEME);
    let (repo, wanted) = parse(what, name.unwrap_or(text)).expect("has the form of a name");
    let kind = match what {
        What::Rows => "file",
        _ => "folder",
    };
    let fetched =
        Settings::from_env().map(Hub::new).and_then(|hub| hub.fetch(&repo, &wanted, &mut Download::new()));
    let snapshot = fetched.map_err(|error| match error {
        Error::Config { what, why } if what == repo.to_string() => match name {
            Some(_) => Error::config(flag, format!("{repo} {why}")),
            None => Error::config(flag, format!("{repo} is not a local {kind}, and {why}")),
        },
        other => other,
    })?;
    let pinned = format!("{}{}", if name.is_some() { SCHEME } else { "" }, repo.at(&snapshot.commit));
    let Wanted::Rows(split) = &wanted else { return Ok((vec![snapshot.dir], pinned)) };
    let files = snapshot.files.iter().map(|file| snapshot.dir.join(file)).collect();
    let name = match (&snapshot.files[..], split) {
        ([file], _) => format!("{pinned}:{file}"),
        (_, Some(split)) => format!("{pinned}:{split}"),
        (_, None) => pinned,
    };
    Ok((files, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_revision_and_rows_a_split() {
        let rows = |text| {
            let (repo, wanted) = parse(What::Rows, text)?;
            let Wanted::Rows(split) = wanted else { panic!("{wanted:?}") };
            Some((repo.to_string(), split))
        };
        let found = |repo: &str, split: Option<&str>| Some((repo.to_owned(), split.map(str::to_owned)));
        assert_eq!(rows("a/b"), found("a/b", None));
        assert_eq!(rows("a/b:test"), found("a/b", Some("test")));
        assert_eq!(rows("a/b@v1:x/train.jsonl"), found("a/b@v1", Some("x/train.jsonl")));
        for text in ["data/rows.jsonl", "data/rows.json.gz", "a/b:", "a:b/c", "C:/rows", "a/b/c"] {
            assert_eq!(rows(text), None, "{text}");
        }
        assert!(has_form(What::Model, "Qwen/Qwen2.5-0.5B@main") && !has_form(What::Model, "a/b:c"));
    }
}
