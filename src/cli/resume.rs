//! `--resume RUN`: reads the flags of a run from its `run.json`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf, absolute};

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::Value;

use super::args::{self, foreign::is_called};
use super::config_file;
use crate::error::{Error, Result};
use crate::files;
use crate::train::run_dir::RUN;

/// Flags whose value may be a path.
const MAYBE_PATHS: [&str; 2] = ["judge-template", "resume-from-checkpoint"];

/// With `--resume`, adds the flags of the run that are not given in `arguments`, and changes to the folder in which the run
/// was started, since its relative paths start there. Otherwise returns `arguments` unchanged.
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
    let Some(mut recorded) = files::read_json_if_present(&path)? else {
        return Err(Error::file(
            &run,
            format!("holds no run to resume (it has no {RUN}): give a run folder to --resume"),
        ));
    };
    let of = recorded["command"].as_str().unwrap_or("another command").to_owned();
    if of != name {
        let why = match of.as_str() {
            "demo" => {
                "is a run of oaif demo: resume it with oaif demo --resume-from-checkpoint last".to_owned()
            }
            _ => format!(
                "is a run of oaif {of}, not of oaif {name}: resume it with oaif {of} --resume {}",
                run.display()
            ),
        };
        return Err(Error::file(&run, why));
    }
    let is_given = |flag: &str| given.value_source(flag) == Some(ValueSource::CommandLine);
    if is_given("output_dir") {
        return Err(Error::config(
            "--output-dir",
            "cannot be combined with --resume, which gives the folder: leave it out",
        ));
    }
    if is_given("config") {
        return Err(Error::config(
            "--config",
            "cannot be combined with --resume, which reads the run's flags: leave it out",
        ));
    }
    remove_replaced_flags(&mut recorded, given);
    recorded["output-dir"] = Value::from(run.to_string_lossy());
    let sub = lenient.find_subcommand(name).expect("just parsed");
    let working_dir = recorded["working_dir"].as_str().map(PathBuf::from).filter(|dir| dir.is_dir());
    let mut arguments = arguments;
    if let Some(working_dir) = working_dir {
        arguments = arguments_of(sub, arguments)?;
        std::env::set_current_dir(&working_dir).map_err(Error::io("enter", &working_dir))?;
    }
    let from_run = config_file::flags_of(sub, recorded, given).map_err(|why| Error::file(&path, why))?;
    let mut all = from_run;
    if !is_given("resume_from_checkpoint") {
        all.push("--resume-from-checkpoint=last".into());
    }
    arguments.splice(2..2, all);
    Ok(arguments)
}

/// Removes the flags of the judge (or loss) from the flags `recorded` in `run.json` if another judge (or loss) is given.
pub(super) fn remove_replaced_flags(recorded: &mut Value, given: &ArgMatches) {
    for (flag, flags) in [("judge", args::flags_of_judges()), ("loss", args::flags_of_losses())] {
        if given.try_contains_id(flag).is_err() || given.value_source(flag) != Some(ValueSource::CommandLine)
        {
            continue;
        }
        let values: Vec<_> = given.get_raw(flag).into_iter().flatten().map(OsStr::to_string_lossy).collect();
        let is_another = recorded[flag] != values.join(",");
        if let Value::Object(recorded) = recorded
            && is_another
        {
            recorded.retain(|name, _| !flags.contains(name));
        }
    }
}

fn takes_path(arg: &Arg) -> bool {
    let path: ValueParser = value_parser!(PathBuf);
    arg.get_value_parser().type_id() == path.type_id()
        || arg.get_long().is_some_and(|long| MAYBE_PATHS.contains(&long))
}

/// Makes the paths in the arguments absolute.
fn arguments_of(command: &Command, arguments: Vec<OsString>) -> Result<Vec<OsString>> {
    let names_path = |flag: &str| command.get_arguments().any(|arg| is_called(arg, flag) && takes_path(arg));
    let mut of_path = false;
    let mut out = Vec::new();
    for argument in arguments {
        let text = argument.to_string_lossy().into_owned();
        // `-m PATH` and `-mPATH`.
        let letter = text.strip_prefix('-').and_then(|rest| rest.chars().next()).filter(|c| *c != '-');
        if let Some(letter) = letter.filter(|_| !of_path) {
            let known = command.get_arguments().any(|arg| arg.get_short() == Some(letter) && takes_path(arg));
            let value = &text[1 + letter.len_utf8()..];
            out.push(match known && !value.is_empty() {
                true => OsString::from(format!("-{letter}{}", fixed(OsStr::new(value))?.to_string_lossy())),
                false => argument,
            });
            of_path = known && value.is_empty();
            continue;
        }
        let flag = text.strip_prefix("--").unwrap_or_default();
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        let known = names_path(name);
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

/// The absolute path of a value that exists as a file or folder, else the value.
fn fixed(value: &OsStr) -> Result<OsString> {
    let path = Path::new(value);
    match path.exists() {
        true => absolute(path).map(PathBuf::into_os_string).map_err(Error::io("read", path)),
        false => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_under_all_names_of_their_flags() {
        let all = config_file::lenient(&args::command());
        let here = absolute("src").unwrap().display().to_string();
        for (command, line, expected) in [
            ("align", "--model src", "--model HERE"),
            ("align", "-m src -osrc -j rule", "-m HERE -oHERE -j rule"),
            ("align", "--model-name-or-path src", "--model-name-or-path HERE"),
            ("align", "--model_name_or_path=src", "--model_name_or_path=HERE"),
            ("dpo", "--dataset-name src --train-file=src", "--dataset-name HERE --train-file=HERE"),
            ("sft", "--data src --adapter-path src", "--data HERE --adapter-path HERE"),
            ("align", "--judge_model src --judge-template src", "--judge_model HERE --judge-template HERE"),
            (
                "sft",
                "--resume src --resume-from-checkpoint src",
                "--resume HERE --resume-from-checkpoint HERE",
            ),
            ("sft", "--resume-from-checkpoint last", "--resume-from-checkpoint last"),
            // Values of flags that take no path are unchanged.
            ("align", "--judge-rule src --stop=src --seed 1", "--judge-rule src --stop=src --seed 1"),
        ] {
            let arguments = line.split(' ').map(OsString::from).collect();
            let fixed = arguments_of(all.find_subcommand(command).unwrap(), arguments).unwrap();
            let fixed: Vec<&str> = fixed.iter().map(|argument| argument.to_str().unwrap()).collect();
            assert_eq!(fixed.join(" "), expected.replace("HERE", &here));
        }
    }
}
