//! `--config FILE` and `--preset NAME`: flags from a YAML, TOML or JSON file whose keys are flag names.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value};

use super::resume::remove_replaced_flags;
use super::{args, presets};
use crate::error::{Error, Result};
use crate::files;
use crate::judge::names;

const CONFIG: &str = "config";
const PRESET: &str = "preset";
/// The hidden flag that names a switch which is off, as in `--report false`: presets and files do not turn it on.
pub(super) const SWITCHED_OFF: &str = "switched-off";

/// Adds `--config` to every command, and `--preset` to those that have presets.
pub(super) fn add_flags(command: Command) -> Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .short('c')
        .value_name("FILE")
        .help_heading(None::<&str>)
        .value_parser(value_parser!(PathBuf))
        .help(
            "Read flags from a .yaml, .toml or .json file whose keys are flag names; relative paths start at the working \
             folder; flags on the command line take precedence",
        );
    let switched_off = Arg::new(SWITCHED_OFF).long(SWITCHED_OFF).action(ArgAction::Append).hide(true);
    command.mut_subcommands(|sub| {
        let names = presets::of(sub.get_name());
        let sub = sub.arg(config.clone()).arg(switched_off.clone());
        if names.is_empty() {
            return sub;
        }
        let preset = Arg::new(PRESET)
            .long(PRESET)
            .value_name("NAME")
            .help_heading(None::<&str>)
            .action(ArgAction::Append)
            .value_parser(names)
            .help("Use the flags of a built-in configuration; --config and flags on the command line take precedence");
        sub.arg(preset)
    })
}

/// `arguments` (the names of the program and the command first) with the flags of `--config` and `--preset`. Flags on the
/// command line replace those of the file, which replace those of presets; of several presets, the last one's are taken.
///
/// # Errors
/// [`Error::Io`] for a file that cannot be read, [`Error::Config`] for a key that is not a flag of the command.
pub(super) fn merge(command: &Command, arguments: Vec<OsString>) -> Result<Vec<OsString>> {
    let lenient = lenient(command);
    let arguments = added(&lenient, arguments, |sub, given| {
        let Some(path) = given.get_one::<PathBuf>(CONFIG) else { return Ok(Vec::new()) };
        flags_of_file(sub, path, |arg| is_given(given, arg))
    })?;
    presets_in(&lenient, &arguments).iter().rev().try_fold(arguments, |arguments, name| {
        added(&lenient, arguments, |sub, given| {
            let mut preset = presets::read(name);
            let judge = preset["judge"].clone();
            remove_replaced_flags(&mut preset, given);
            if let Value::Object(preset) = &mut preset {
                // An adapter that is given has its own settings.
                let has_adapter = given.contains_id("adapter");
                // The other flags of a preset whose judge is replaced are for that judge.
                let is_replaced = !judge.is_null() && !preset.contains_key("judge");
                preset.retain(|key, _| {
                    !(has_adapter && key.starts_with("lora-")
                        || is_replaced && ["ui", "async-level"].contains(&key.as_str()))
                });
            }
            flags_of(sub, preset, given).map_err(|why| Error::config(format!("--preset {name}"), why))
        })
    })
}

/// The values of `--preset`.
fn presets_in(lenient: &Command, arguments: &[OsString]) -> Vec<String> {
    let matches = lenient.clone().try_get_matches_from(arguments);
    let given = matches.as_ref().ok().and_then(ArgMatches::subcommand);
    let names = given.and_then(|(_, given)| given.try_get_many(PRESET).ok().flatten());
    names.into_iter().flatten().cloned().collect()
}

/// `arguments` with the flags that `more` returns for the command and its given flags.
fn added(
    lenient: &Command,
    mut arguments: Vec<OsString>,
    more: impl FnOnce(&Command, &ArgMatches) -> Result<Vec<OsString>>,
) -> Result<Vec<OsString>> {
    let Ok(matches) = lenient.clone().try_get_matches_from(&arguments) else { return Ok(arguments) };
    let Some((name, given)) = matches.subcommand() else { return Ok(arguments) };
    let more = more(lenient.find_subcommand(name).expect("just parsed"), given)?;
    arguments.splice(2..2, more);
    Ok(arguments)
}

/// The flags in a file, as they would be typed after `command`.
///
/// # Errors
/// As [`merge`].
pub(super) fn flags_in(command: &Command, path: &Path) -> Result<Vec<OsString>> {
    let mut command = command.clone();
    command.build();
    flags_of_file(&command, path, |_| false)
}

/// Like [`flags_in`], for a command that is built, without the flags for which `skip` is true.
fn flags_of_file(command: &Command, path: &Path, skip: impl Fn(&Arg) -> bool) -> Result<Vec<OsString>> {
    flags(command, read(path)?, skip).map_err(|why| Error::config(path.display().to_string(), why))
}

/// The command without required flags, for a first pass: missing flags may be in a file. The second pass reports errors.
pub(super) fn lenient(command: &Command) -> Command {
    let mut lenient = command.clone().mut_subcommands(|sub| sub.mut_args(optional));
    lenient.build();
    lenient
}

fn is_given(given: &ArgMatches, arg: &Arg) -> bool {
    let switched_off = given.try_get_many::<String>(SWITCHED_OFF).ok().flatten();
    given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
        || switched_off.into_iter().flatten().any(|name| name == long(arg))
}

/// The flags in a run's `run.json` or in a preset, as they would be typed, without those that are `given` or conflict with a
/// given one.
pub(super) fn flags_of(command: &Command, run: Value, given: &ArgMatches) -> Result<Vec<OsString>, String> {
    let Value::Object(map) = without_facts(run) else { return Err("holds no flags".into()) };
    let excludes = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
    };
    flags(command, map, |arg| {
        let mut typed = command.get_arguments().filter(|typed| is_given(given, typed));
        typed.any(|typed| typed.get_id() == arg.get_id() || excludes(typed, arg) || excludes(arg, typed))
    })
}

/// Removes the keys of a `run.json` that are not flags, so that the file can be used with `--config`.
fn without_facts(mut file: Value) -> Value {
    if let Value::Object(map) = &mut file {
        crate::train::RunFile::facts().for_each(|fact| drop(map.remove(&fact)));
    }
    file
}

fn optional(arg: Arg) -> Arg {
    arg.required(false).required_unless_present(Resettable::Reset).requires(Resettable::Reset)
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let bad = |why: String| Error::config(path.display().to_string(), why);
    let text = files::read_text(path)?;
    // Only the first line of a parser's message: the others show the place.
    let first_line = |e: &str| e.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let parsed: Result<Value, String> = match path.extension().and_then(|e| e.to_str()) {
        Some("yaml" | "yml") => serde_saphyr::from_str(&text)
            // The default messages also advise the programmer.
            .map_err(|e| first_line(&e.render_with_formatter(&serde_saphyr::UserMessageFormatter))),
        Some("toml") => toml::from_str(&text).map_err(|e: toml::de::Error| {
            let line = e.span().map(|at| text[..at.start].matches('\n').count() + 1);
            let place = line.map(|n| format!("line {n}: ")).unwrap_or_default();
            place + &first_line(e.message())
        }),
        Some("json") => serde_json::from_str(&text).map_err(|e| e.to_string()),
        _ => return Err(bad("has an unknown format: give a .yaml, .yml, .toml or .json file".into())),
    };
    match without_facts(parsed.map_err(bad)?) {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(bad("holds no keys: expected flag names with values".into())),
    }
}

/// The flags of a file, as they would be typed.
fn flags(
    command: &Command,
    file: Map<String, Value>,
    skip: impl Fn(&Arg) -> bool,
) -> Result<Vec<OsString>, String> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for (key, value) in &file {
        if !is_known(command, key)
            && let Some(answer) = args::foreign::answer(key, &texts(value))
        {
            answer.map_err(|instead| format!("key {key:?}: {instead}"))?;
            continue;
        }
        let arg = find(command, key)?;
        if !seen.insert(arg.get_id()) {
            return Err(format!("key {key:?} gives --{} a second time", long(arg)));
        }
        let typed = typed(arg, value).map_err(|why| format!("key {key:?} {why}"))?;
        // `--resume` is applied before the file is read.
        if long(arg) == "resume" && !typed.is_empty() {
            return Err(format!(
                "key {key:?} belongs on the command line: type --resume RUN instead of --config"
            ));
        }
        if skip(arg) {
            continue;
        }
        out.extend(typed.into_iter().map(OsString::from));
        let is_switch = !arg.get_action().takes_values();
        let can_be_switched_off = command.get_arguments().any(|arg| arg.get_id() == SWITCHED_OFF);
        if is_switch && *value == Value::Bool(false) && can_be_switched_off {
            out.push(format!("--{SWITCHED_OFF}={}", long(arg)).into());
        }
    }
    Ok(out)
}

/// The flags that a file may set.
fn own_flags(command: &Command) -> impl Iterator<Item = &Arg> {
    let own = |arg: &&Arg| {
        arg.get_long().is_some_and(|long| ![CONFIG, SWITCHED_OFF, "help", "version"].contains(&long))
    };
    command.get_arguments().filter(own)
}

fn is_known(command: &Command, key: &str) -> bool {
    let name = key.replace('_', "-");
    own_flags(command).any(|arg| args::foreign::is_called(arg, &name))
}

fn find<'a>(command: &'a Command, key: &str) -> Result<&'a Arg, String> {
    let name = key.replace('_', "-");
    own_flags(command).find(|arg| args::foreign::is_called(arg, &name)).ok_or_else(|| {
        let known: Vec<&str> = own_flags(command).map(long).collect();
        let command = command.get_name();
        match names::nearest(&name, &known) {
            Some(near) => format!("key {key:?} is not a flag of oaif {command} (did you mean {near:?}?)"),
            None => format!("key {key:?} is not a flag of oaif {command}: see oaif {command} --help"),
        }
    })
}

fn long(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}

fn typed(arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let flag = format!("--{}", long(arg));
    let takes_value = arg.get_action().takes_values();
    let value_is_optional = arg.get_num_args().is_some_and(|n| n.min_values() == 0);
    match value {
        Value::Null => Ok(vec![]),
        Value::Bool(on) if value_is_optional => Ok(if *on { vec![flag] } else { vec![] }),
        _ if !takes_value => Err(format!("takes true or false, not {value}")),
        Value::Array(items) if matches!(arg.get_action(), ArgAction::Append) => {
            let texts: Vec<String> = items.iter().map(text).collect::<Result<_, _>>()?;
            match arg.get_value_delimiter() {
                Some(_) if texts.is_empty() => Ok(vec![]),
                Some(comma) => Ok(vec![format!("{flag}={}", texts.join(&comma.to_string()))]),
                None => Ok(texts.iter().map(|text| format!("{flag}={text}")).collect()),
            }
        }
        Value::Array(_) => Err("takes one value, not a list".into()),
        one => Ok(vec![format!("{flag}={}", text(one)?)]),
    }
}

/// The value of another trainer's key, as texts.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Null => vec!["none".into()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Object(_) => {
            Err("holds nested keys: write all flags at the top level, without sections".into())
        }
        other => Err(format!("takes a number or a text, not {other}")),
    }
}

#[cfg(test)]
mod tests;
