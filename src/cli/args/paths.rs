//! Checks of the files and folders given on the command line, with suggestions where one is of the wrong kind.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::ensure;
use crate::cli::fetch::{What, is_name, is_name_beside_folder};
use crate::error::{Error, Result};
use crate::model::adapter_storage::ADAPTER_CONFIG;
use crate::train::options::TrainOptions;
use crate::train::run_dir::{CONTENTS, RUN, checkpoints};
use crate::{files, gguf};

const MODEL_CONFIG: &str = "config.json";
/// Names of the trained model and LoRA adapter in a run folder.
const RUN_MODEL: &str = "model";
const RUN_ADAPTER: &str = "adapter";
/// Extensions of files with weights.
const WEIGHT_EXTENSIONS: [&str; 6] = ["safetensors", "bin", "pt", "pth", "ggml", "onnx"];

/// The `--adapter` flag of commands with a model.
// A heading of the struct would also apply to the fields after a flattened AdapterArgs.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct AdapterArgs {
    /// LoRA adapter of the model: a folder, such as RUN/adapter, or ORG/NAME[@REVISION] on the Hugging Face Hub; training
    /// continues it
    #[arg(long, value_name = "DIR|NAME", aliases = ["adapter-path", "adapter-name-or-path"], help_heading = "LoRA")]
    adapter: Option<PathBuf>,
}

impl AdapterArgs {
    pub fn plan(&self) -> Result<Option<PathBuf>> {
        self.adapter.as_deref().map(|path| adapter_dir("--adapter", path)).transpose()
    }
}

/// A file or folder that a run reads, with its flag.
pub(super) type InputPath = (&'static str, PathBuf);

/// The paths that are given, with their flags.
pub(super) fn given(paths: impl IntoIterator<Item = (&'static str, Option<PathBuf>)>) -> Vec<InputPath> {
    paths.into_iter().filter_map(|(flag, path)| Some((flag, path?))).collect()
}

/// Refuses to overwrite a run that holds an input of the new run.
pub(super) fn refuse_own_input(options: &TrainOptions, inputs: &[InputPath]) -> Result<()> {
    if !options.overwrite {
        return Ok(());
    }
    let Ok(run) = options.folder().canonicalize() else { return Ok(()) };
    for (flag, path) in inputs {
        let found = path.canonicalize().unwrap_or_default();
        let first = found.strip_prefix(&run).ok().and_then(|inside| inside.iter().next());
        if first.is_some_and(|name| CONTENTS.iter().any(|content| name == *content)) {
            let why =
                format!("would delete {}, which {flag} reads: give another --output-dir", path.display());
            return Err(Error::config("overwrite-output-dir", why));
        }
    }
    Ok(())
}

/// Checks the folder of a model, a GGUF file, or a name on the Hub. Only detects other kinds of folders (adapters, runs);
/// the loader checks that a model is complete.
pub(super) fn model_dir(flag: &str, path: &Path) -> Result<PathBuf> {
    let (shown, refuse) = (path.display(), |why: String| Err(Error::config(flag, why)));
    if is_name(What::Model, path) {
        return Ok(path.to_owned());
    }
    if path.is_file() {
        return match gguf::has_gguf_extension(path) {
            true => Ok(path.to_owned()),
            false => refuse(format!(
                "{shown} is a file, not a folder or a .gguf: give the folder that holds {MODEL_CONFIG}, or a GGUF file"
            )),
        };
    }
    if !path.is_dir() {
        let or = or_on_the_hub(What::Model, path);
        return refuse(format!(
            "{shown} is not a folder: give the folder that holds a model's {MODEL_CONFIG}, or a GGUF file{or}"
        ));
    }
    let only = gguf::file_of(path).map_err(|error| Error::config(flag, error.to_string()))?;
    if path.join(MODEL_CONFIG).exists() || only.is_some() {
        return Ok(path.to_owned());
    }
    let adapted = |adapter: &Path, base: Option<String>| {
        // PEFT's task type of an adapter with a reward head.
        let rates = text_in(&adapter.join(ADAPTER_CONFIG), "task_type").as_deref() == Some("SEQ_CLS");
        let (adapter, base) = (adapter.display(), base.unwrap_or_else(|| "DIR".into()));
        let merge =
            format!("merge it first with `oaif export --model {base} --adapter {adapter} --output merged`");
        match flag {
            "--model" => format!("give {flag} {base} --adapter {adapter}"),
            "--against" => format!("give {flag} {base} --against-adapter {adapter}"),
            "--judge-model" if rates => {
                format!("give --judge reward {flag} {base} --judge-adapter {adapter}, or {merge}")
            }
            _ => merge,
        }
    };
    if path.join(ADAPTER_CONFIG).exists() {
        let base = text_in(&path.join(ADAPTER_CONFIG), "base_model_name_or_path");
        return refuse(format!("{shown} is a LoRA adapter, not a model: {}", adapted(path, base)));
    }
    let (model, adapter) = (path.join(RUN_MODEL), path.join(RUN_ADAPTER));
    if model.join(MODEL_CONFIG).exists() {
        return refuse(format!("{shown} is a run: did you mean {}?", model.display()));
    }
    if adapter.join(ADAPTER_CONFIG).exists() {
        let base = text_in(&path.join(RUN), "model");
        return refuse(format!("{shown} is a run that trained a LoRA adapter: {}", adapted(&adapter, base)));
    }
    match last_checkpoint(path, MODEL_CONFIG) {
        Some(last) => {
            refuse(format!("{shown} is a run that has not finished: did you mean {}?", last.display()))
        }
        None => Ok(path.to_owned()),
    }
}

/// Checks the folder of a LoRA adapter, like [`model_dir`].
pub(super) fn adapter_dir(flag: &str, path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    let refuse = |why: String| Err(Error::config(flag, why));
    let files = "adapter_config.json and adapter_model.safetensors";
    if is_name(What::Adapter, path) {
        return Ok(path.to_owned());
    }
    if !path.is_dir() {
        return refuse(format!(
            "{shown} is not a folder: give the folder of a LoRA adapter, which holds {files} (--gpu chooses a GPU)"
        ));
    }
    if path.join(ADAPTER_CONFIG).exists() {
        return Ok(path.to_owned());
    }
    let adapter = path.join(RUN_ADAPTER);
    if adapter.join(ADAPTER_CONFIG).exists() {
        return refuse(format!("{shown} is a run: did you mean {}?", adapter.display()));
    }
    let model = path.join(RUN_MODEL);
    if model.join(MODEL_CONFIG).exists() {
        let model = model.display();
        return refuse(format!(
            "{shown} is a run that trained all weights: leave out {flag} and give --model {model}"
        ));
    }
    if path.join(MODEL_CONFIG).exists() {
        return refuse(format!(
            "{shown} is a model, not a LoRA adapter: leave out {flag} and give --model {shown}"
        ));
    }
    match last_checkpoint(path, ADAPTER_CONFIG) {
        Some(last) => {
            refuse(format!("{shown} is a run that has not finished: did you mean {}?", last.display()))
        }
        None => refuse(format!("{shown} holds no LoRA adapter: expected {files} in it")),
    }
}

/// The last checkpoint of the run in `dir` that holds `file`.
pub(super) fn last_checkpoint(dir: &Path, file: &str) -> Option<PathBuf> {
    let all = checkpoints(dir).unwrap_or_default();
    all.into_iter().rev().map(|checkpoint| checkpoint.path).find(|path| path.join(file).exists())
}

/// The text of a key in a JSON file, if any. Only used in messages, so errors are ignored.
fn text_in(file: &Path, key: &str) -> Option<String> {
    match files::read_json_if_present(file).ok()??.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// The suggestion to write a missing path as `hf://…`, if it may be a name on the Hub whose owner is also a local folder.
fn or_on_the_hub(what: What, path: &Path) -> String {
    match is_name_beside_folder(what, path) && cfg!(feature = "http") {
        true => format!(", or hf://{} for a name on the Hugging Face Hub", path.display()),
        false => String::new(),
    }
}

/// Checks an output file: its folder must exist.
pub(super) fn output_file(flag: &str, path: &Path) -> Result<PathBuf> {
    let folder = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    let expected = "a file in an existing folder: create the folder or give another file";
    ensure(folder.is_dir() && !path.is_dir(), flag, path.display(), expected).map(|()| path.to_owned())
}

/// Checks an optional `--output` file, like [`output_file`].
pub(super) fn optional_output(path: Option<PathBuf>) -> Result<Option<PathBuf>> {
    path.map(|path| output_file("--output", &path)).transpose()
}

/// Checks a run folder: it exists, or can be created later.
pub(super) fn run_dir(path: &Path) -> Result<PathBuf> {
    let existing =
        path.ancestors().find(|dir| dir.exists() && !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match existing.is_dir() {
        true => Ok(path.to_owned()),
        false => Err(Error::file(existing, "is a file, but --output-dir needs a folder: give another path")),
    }
}

/// Checks the output of an export: a new or empty folder, or a new GGUF file.
pub(super) fn export_dir(output: PathBuf) -> Result<PathBuf> {
    let refused = |why: String| Err(Error::config("--output", why));
    let shown = output.display();
    if gguf::has_gguf_extension(&output) {
        return match output.exists() {
            true => refused(format!("{shown} exists already: choose another name")),
            false => output_file("--output", &output),
        };
    }
    let has_extension =
        |known: &str| output.extension().is_some_and(|found| found.eq_ignore_ascii_case(known));
    let is_folder = output.is_dir() || shown.to_string().ends_with(std::path::is_separator);
    if !is_folder && WEIGHT_EXTENSIONS.into_iter().any(has_extension) {
        return refused(format!("{shown} is named like a file: give a folder, or a name that ends in .gguf"));
    }
    match fs::read_dir(&output) {
        Ok(mut entries) => match entries.next() {
            None => Ok(output),
            Some(_) => refused(format!("{shown} is not empty: choose another folder")),
        },
        Err(e) if e.kind() == ErrorKind::NotADirectory && output.exists() => {
            refused(format!("{shown} is a file: choose a folder"))
        }
        // Other errors appear when the folder is created.
        Err(_) => Ok(output),
    }
}

/// Checks an input file; `-` is standard input.
pub(super) fn input_file(flag: &str, path: &Path) -> Result<PathBuf> {
    if cfg!(unix) && path == Path::new("-") {
        return Ok("/dev/stdin".into());
    }
    existing_file(flag, path, "check the path")
}

/// Checks that `path` exists and is not a folder. `way_out`: what to do if it does not exist.
fn existing_file(flag: &str, path: &Path, way_out: &str) -> Result<PathBuf> {
    let refuse = |why: String| Err(Error::config(flag, format!("{} {why}", path.display())));
    match path.is_dir() {
        true => refuse("is a folder: give a file".into()),
        false if path.exists() => Ok(path.to_owned()),
        false => refuse(format!("does not exist: {way_out}")),
    }
}

/// Checks the rows of a run: a file or a name on the Hub. Standard input is refused, since a resumed run reads the rows again.
pub(super) fn dataset_file(path: &Path) -> Result<PathBuf> {
    let refuse = |why: String| Err(Error::config("--dataset", why));
    if path == Path::new("-") {
        return refuse("- is refused, since a resumed run reads its rows again: give a file".into());
    }
    if is_name(What::Rows, path) {
        return Ok(path.to_owned());
    }
    let or = or_on_the_hub(What::Rows, path);
    existing_file("--dataset", path, &format!("give a file of rows{or}"))
}
