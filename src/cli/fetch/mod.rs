//! The one place where a model, a LoRA adapter or a dataset that is called by its name on the hub becomes a folder or a
//! file. A plan is checked before, so that nothing is downloaded for a command with a mistake in it.

#[cfg(feature = "http")]
mod hub;
#[cfg(not(feature = "http"))]
#[path = "no_hub.rs"]
mod hub;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Result;

/// What is meant by a path or a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Model,
    /// Of which a dry run is to read no weights.
    ModelWithoutWeights,
    Adapter,
    Rows,
}

/// A part of a plan that is a folder, a file, or a name on the hub.
pub(super) struct Input<'a> {
    flag: &'static str,
    what: What,
    given: Given<'a>,
}

/// What is given, to be replaced by what it names.
enum Given<'a> {
    Path(&'a mut PathBuf),
    Files(&'a mut Vec<PathBuf>),
}

impl<'a> Input<'a> {
    /// A folder.
    pub fn new(flag: &'static str, what: What, path: &'a mut PathBuf) -> Input<'a> {
        Input { flag, what, given: Given::Path(path) }
    }

    /// Files of rows, if there are any.
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

/// A plan with such parts.
pub(super) trait Fetch: Sized {
    /// Those parts.
    fn inputs(&mut self) -> Vec<Input<'_>>;

    /// The configuration that a run's folder keeps, if there is one.
    fn config(&mut self) -> Option<&mut Value> {
        None
    }

    /// Sets what depends on the fetched files.
    fn complete(&mut self) {}
}

/// The plan with folders and files for names. Its configuration names the commits: whoever goes on with the run later
/// gets the same.
pub(super) fn fetched<P: Fetch>(mut plan: P) -> Result<P> {
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
        // A member's of an ensemble is in the member's own file.
        commits.retain(|(key, _)| !config[*key].is_null());
        for (key, name) in commits {
            config[key] = Value::from(name);
        }
    }
    plan.complete();
    Ok(plan)
}

/// Before a name that is not to be looked for among the folders here.
const SCHEME: &str = "hf://";

/// Whether `given` is a name on the hub. What is here goes first: a folder of that name, and whatever is below a folder that
/// is here, which is a path with a mistake in it and nobody else's business.
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

/// Whether `given` would be a name, were there not a folder of what it begins with.
pub(super) fn is_name_beside_folder(what: What, given: &Path) -> bool {
    let name = given.to_str().filter(|text| hub::has_form(what, text));
    name.is_some() && !is_name(what, given)
}

/// Ends of files of rows, which are files here rather than names.
fn is_file_of_rows(name: &str) -> bool {
    const ENDS: [&str; 10] =
        [".jsonl", ".json", ".gz", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".zst"];
    ENDS.iter().any(|end| name.ends_with(end))
}
