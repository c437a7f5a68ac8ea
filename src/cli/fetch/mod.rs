//! Downloads the models, LoRA adapters and datasets of a plan that are given by their names on the Hugging Face Hub. The plan
//! is checked first, so that nothing is downloaded for a command with an error.

#[cfg(feature = "http")]
mod hub;
#[cfg(not(feature = "http"))]
#[path = "no_hub.rs"]
mod hub;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Result;

/// The kind of a path or name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Model,
    /// For a dry run, which reads no weights.
    ModelWithoutWeights,
    Adapter,
    Rows,
}

/// An input of a plan: a folder, a file, or a name on the Hub.
pub(super) struct Input<'a> {
    flag: &'static str,
    what: What,
    given: Given<'a>,
}

/// The given paths or names, to be replaced by downloaded ones.
enum Given<'a> {
    Path(&'a mut PathBuf),
    Files(&'a mut Vec<PathBuf>),
}

impl<'a> Input<'a> {
    /// A folder.
    pub fn new(flag: &'static str, what: What, path: &'a mut PathBuf) -> Input<'a> {
        Input { flag, what, given: Given::Path(path) }
    }

    /// Files of rows; `None` if there are none.
    pub fn rows(flag: &'static str, files: &'a mut Vec<PathBuf>) -> Option<Input<'a>> {
        (!files.is_empty()).then_some(Input { flag, what: What::Rows, given: Given::Files(files) })
    }

    fn path(&self) -> &Path {
        match &self.given {
            Given::Path(path) => path,
            Given::Files(files) => &files[0],
        }
    }
}

/// A plan with inputs.
pub(super) trait Fetch: Sized {
    /// The inputs.
    fn inputs(&mut self) -> Vec<Input<'_>>;

    /// Fails if the plan cannot be carried out, before anything is downloaded.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The configuration that is saved in the run folder, if any.
    fn config(&mut self) -> Option<&mut Value> {
        None
    }

    /// Sets what depends on the fetched files.
    fn complete(&mut self) {}
}

/// Replaces names on the Hub in the plan by downloaded folders and files. The names in its configuration get the commits as
/// revisions, so that a resumed run uses the same files.
pub(super) fn fetched<P: Fetch>(mut plan: P) -> Result<P> {
    plan.check()?;
    let mut commits = Vec::new();
    for input in plan.inputs().into_iter().filter(|input| is_name(input.what, input.path())) {
        let (paths, name) = hub::fetch(input.flag, input.what, input.path())?;
        match input.given {
            Given::Path(path) => *path = paths.into_iter().next().unwrap_or_default(),
            Given::Files(files) => *files = paths,
        }
        commits.push((input.flag.trim_start_matches("--"), name));
    }
    if let Some(config) = plan.config() {
        // Models of a second judge and of an ensemble's members are not flags but in the files of these judges.
        commits.retain(|(key, _)| config[*key].is_string());
        for (key, name) in commits {
            config[key] = Value::from(name);
        }
    }
    plan.complete();
    Ok(plan)
}

/// Prefix of a name on the Hub, to distinguish it from a local path.
const SCHEME: &str = "hf://";

/// Whether `given` is a name on the Hub. Local paths take precedence: an existing path, and any path whose first folder
/// exists, which is treated as a mistyped path and not sent to the Hub.
pub(super) fn is_name(what: What, given: &Path) -> bool {
    let Some(text) = given.to_str() else { return false };
    match text.strip_prefix(SCHEME) {
        Some(name) => hub::has_form(what, name),
        None => {
            let owner = text.split('/').next().unwrap_or_default();
            !given.exists() && !Path::new(owner).exists() && hub::has_form(what, text)
        }
    }
}

/// Whether `given` has the form of a name on the Hub but its first part is a local folder.
pub(super) fn is_name_beside_folder(what: What, given: &Path) -> bool {
    let name = given.to_str().filter(|text| hub::has_form(what, text));
    name.is_some() && !is_name(what, given)
}

/// Whether the name ends like a local file of rows.
fn is_file_of_rows(name: &str) -> bool {
    const ENDS: [&str; 10] =
        [".jsonl", ".json", ".gz", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".zst"];
    ENDS.iter().any(|end| name.ends_with(end))
}
