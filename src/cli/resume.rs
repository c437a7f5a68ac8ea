//! `--resume RUN`: the flags that a run was begun with, from its own `run.json`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf, absolute};

use clap::Command;
use clap::parser::ValueSource;
use serde_json::Value;

use super::config_file;
use crate::error::{Error, Result};
use crate::files;
use crate::train::run_dir::RUN;

/// Flags whose values are paths.
const PATHS: [&str; 7] =
    ["model", "dataset", "adapter", "judge-model", "judge-template", "resume-from-checkpoint", "profile"];

/// `arguments` as they are, or those of a run that is to be gone on with: its flags, save those that are given here as
/// well. The program then works in the folder that the run was begun in, which its relative paths are of.
///
/// # Errors
/// [`Error::File`] for a folder that holds no run, or one of another command.
pub(super) fn expand(command: &Command, arguments: Vec<OsString>) -> Result<Vec<OsString>> {
    let lenient = config_file::lenient(command);
    let Ok(matches) = lenient.clone().try_get_matches_from(&arguments) else { return Ok(arguments) };
    let Some((name, given)) = matches.subcommand() else { return Ok(arguments) };
    let Ok(Some(run)) = given.try_get_one::<PathBuf>("resume") else { return Ok(arguments) };
    let run = absolute(run).map_err(Error::io("read", run))?;
    let path = run.join(RUN);
    let Some(mut told) = files::read_json_if_present(&path)? else {
        return Err(Error::file(
            &run,
            format!("holds no run to go on with (it has no {RUN}): check --resume"),
        ));
    };
    let of = told["command"].as_str().unwrap_or("another command").to_owned();
    if of != name {
        let why = match of.as_str() {
            "demo" => "is a run of oaif demo: go on by oaif demo --resume-from-checkpoint last".to_owned(),
            _ => format!(
                "is a run of oaif {of}, not of oaif {name}: go on by oaif {of} --resume {}",
                run.display()
            ),
        };
        return Err(Error::file(&run, why));
    }
    let is_given = |flag: &str| given.value_source(flag) == Some(ValueSource::CommandLine);
    if is_given("output_dir") {
        return Err(Error::config("--output-dir", "is the folder that --resume names: leave it out"));
    }
    if is_given("config") {
        return Err(Error::config("--config", "is what --resume takes from the run: leave it out"));
    }
    told["output-dir"] = Value::from(run.to_string_lossy());
    let begun_in = told["working_dir"].as_str().map(PathBuf::from).filter(|dir| dir.is_dir());
    let mut arguments = arguments;
    if let Some(begun_in) = begun_in {
        arguments = arguments_of(arguments)?;
        std::env::set_current_dir(&begun_in).map_err(Error::io("enter", &begun_in))?;
    }
    let sub = lenient.find_subcommand(name).expect("just parsed");
    let from_run = config_file::flags_of(sub, told, given).map_err(|why| Error::file(&path, why))?;
    let mut all = from_run;
    if !is_given("resume_from_checkpoint") {
        all.push("--resume-from-checkpoint=last".into());
    }
    arguments.splice(2..2, all);
    Ok(arguments)
}

/// The arguments with paths that hold wherever the program works.
fn arguments_of(arguments: Vec<OsString>) -> Result<Vec<OsString>> {
    let mut of_path = false;
    let mut out = Vec::new();
    for argument in arguments {
        let text = argument.to_string_lossy().into_owned();
        let flag = |text: &str| text.trim_start_matches("--").replace('_', "-");
        let (name, value) = match text.split_once('=') {
            Some((name, value)) if text.starts_with("--") => (flag(name), Some(value)),
            _ => (flag(&text), None),
        };
        let known = text.starts_with("--") && PATHS.contains(&name.as_str());
        out.push(match value.filter(|_| known) {
            Some(value) => {
                OsString::from(format!("--{name}={}", fixed(OsStr::new(value))?.to_string_lossy()))
            }
            None if of_path => fixed(&argument)?,
            None => argument,
        });
        of_path = known && value.is_none();
    }
    Ok(out)
}

/// A value that names something here, by its whole path.
fn fixed(value: &OsStr) -> Result<OsString> {
    let path = Path::new(value);
    match path.exists() {
        true => absolute(path).map(PathBuf::into_os_string).map_err(Error::io("read", path)),
        false => Ok(value.to_owned()),
    }
}
