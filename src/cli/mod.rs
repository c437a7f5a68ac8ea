//! The program `oaif`: parses arguments, calls the library and prints results. No other module prints.

mod advice;
mod args;
mod commands;
mod config_file;
mod console;
mod fetch;
mod labelling;
mod presets;
mod printable;
mod progress_line;
mod ranks;
#[cfg(test)]
mod reference;
mod resume;
mod signals;
mod version;

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};
use std::path::Path;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
use clap::error::{ContextKind, ContextValue};

use crate::data::tokenizer::panics_are_caught;
use crate::error::{Error, Result};
use args::{Cli, Command};
use console::{fail, format_of, log_is_text, set_log};
use fetch::fetched;
use printable::printable;
use ranks::Trains;

/// The path in errors of writing to standard output.
const STANDARD_OUTPUT: &str = "standard output";

/// Runs the program. Exit codes: 0 for success, 1 for failure, 2 for wrong usage, 128 plus the signal's number when
/// interrupted: 129 by SIGHUP, 130 by Ctrl-C, the page's Stop or q, 138 by SIGUSR1, 143 by SIGTERM.
pub fn main() -> ExitCode {
    // A damaged tokenizer.json makes the tokenizers crate panic. The panic is caught and reported as an error, so its own
    // message is not printed.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panics_are_caught() {
            print(panic);
        }
    }));
    let arguments = command_first(std::env::args_os().collect());
    set_log(format_of(&arguments), false);
    signals::make_size_limit_an_error();
    let name = arguments.get(1).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let done = match ranks::meet(&name).and_then(|()| parse(arguments)) {
        Ok(Ok(cli)) => {
            set_log(cli.log, cli.quiet);
            ranks::check(&name).and_then(|()| run(cli))
        }
        Ok(Err(usage)) if usage.use_stderr() && !ranks::ranks().is_alone() => {
            Err(Error::config("arguments", sentence(&usage)))
        }
        Ok(Err(usage)) => {
            // clap reports help and version as errors too.
            match usage.kind() {
                DisplayHelp | DisplayVersion if ranks::is_silent() => Ok(()),
                DisplayHelp | DisplayVersion => usage.print().map_err(Error::io("write to", STANDARD_OUTPUT)),
                kind => {
                    let code = usage.exit_code() as u8;
                    match kind {
                        DisplayHelpOnMissingArgumentOrSubcommand if log_is_text() => drop(usage.print()),
                        _ => fail(sentence(&usage), code),
                    }
                    ranks::part();
                    return code.into();
                }
            }
        }
        Err(error) => Err(error),
    };
    let code = match done.map_err(ranks::settle) {
        Ok(()) => ExitCode::SUCCESS,
        // Rank 0 prints the error.
        Err(error) if ranks::is_silent() => exit_code(&error).into(),
        // The reader of the output closed the pipe.
        Err(Error::Io { path, source, .. })
            if source.kind() == ErrorKind::BrokenPipe && path == Path::new(STANDARD_OUTPUT) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = exit_code(&error);
            let text = advice::sentence(error, args::command().find_subcommand(&name));
            // Messages of some parsers have several lines, but an error is printed on one line.
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            fail(lines.join(" "), code);
            code.into()
        }
    };
    ranks::part();
    code
}

/// The arguments with the command's name first, also if global flags stand before it (`oaif -q align`).
fn command_first(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_global = |at: usize| {
        let word = arguments[at].to_string_lossy();
        ["-q", "--quiet", "--log"].contains(&&*word)
            || word.starts_with("--log=")
            || arguments[at - 1] == "--log"
    };
    let first = (1..arguments.len()).find(|at| !is_global(*at));
    // `help` takes no flags.
    let command =
        first.filter(|at| arguments[*at] != "help" && !arguments[*at].to_string_lossy().starts_with('-'));
    if let Some(command) = command {
        arguments[1..=command].rotate_right(1);
    }
    arguments
}

/// Parses the command line with the flags of `--config`, `--preset` and `--resume`. The inner error is clap's own.
fn parse(arguments: Vec<OsString>) -> Result<Result<Cli, clap::Error>> {
    let mut command = command();
    let arguments = args::foreign::translate(&command, arguments)?;
    let arguments = resume::expand(&command, arguments)?;
    let arguments = config_file::merge(&command, arguments)?;
    let name = arguments.get(1).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let matches = command.try_get_matches_from_mut(arguments);
    let parsed = matches.and_then(|m| Cli::from_arg_matches(&m));
    Ok(parsed.map_err(|mut e| {
        spell_suggestion(&mut e, command.find_subcommand(&name));
        e.format(&mut command)
    }))
}

/// All commands and flags.
pub(crate) fn command() -> clap::Command {
    config_file::add_flags(args::command())
}

/// Replaces an alias in clap's suggestion by the name that --help shows.
fn spell_suggestion(usage: &mut clap::Error, command: Option<&clap::Command>) {
    let Some(ContextValue::String(suggested)) = usage.get(ContextKind::SuggestedArg) else { return };
    let name = suggested.trim_start_matches("--");
    let shown =
        command.and_then(|c| c.get_arguments().find(|arg| args::foreign::is_called(arg, name))?.get_long());
    if let Some(shown) = shown.map(|long| format!("--{long}")) {
        usage.insert(ContextKind::SuggestedArg, ContextValue::String(shown));
    }
}

/// Joins the paragraphs of clap's message into one line: the error, the tips, and a hint to --help.
fn sentence(usage: &clap::Error) -> String {
    let mut usage_text = usage.render().to_string();
    if let Some((found, replacement)) = number_error(usage)
        && let Some(at) = usage_text.rfind(&found)
    {
        usage_text.replace_range(at..at + found.len(), replacement);
    }
    let paragraph = |text: &str| {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.join(" ").trim_start_matches("error: ").trim_start_matches("tip: ").to_owned()
    };
    let is_kept = |text: &&str| !text.starts_with("Usage: ") && !text.starts_with("For more information");
    let mut parts: Vec<String> = usage_text.trim().split("\n\n").filter(is_kept).map(paragraph).collect();
    parts.push("see --help".into());
    parts.join("; ")
}

/// The text of the standard library's error about a number, and the one that is printed instead.
fn number_error(usage: &clap::Error) -> Option<(String, &'static str)> {
    let source = usage.source()?;
    let value = usage.get(ContextKind::InvalidValue).map(ToString::to_string).unwrap_or_default();
    let is_negative = value.strip_prefix('-').is_some_and(|digits| digits.parse::<u64>().is_ok());
    let replacement = match source.downcast_ref::<ParseIntError>().map(ParseIntError::kind) {
        Some(IntErrorKind::InvalidDigit) if is_negative => "expected a whole number, 0 or larger",
        Some(IntErrorKind::InvalidDigit | IntErrorKind::Empty) => "expected a whole number",
        Some(IntErrorKind::PosOverflow) => "it is too large",
        Some(IntErrorKind::NegOverflow) => "it is too small",
        Some(_) => return None,
        None => source.downcast_ref::<ParseFloatError>().map(|_| "expected a number")?,
    };
    Some((source.to_string(), replacement))
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => commands::demo::run(args.plan()?),
        Command::Align(args) => commands::align::run(fetched(args.plan()?)?.join()?),
        Command::Sft(args) => commands::sft::run(fetched(args.plan()?)?.join()?),
        Command::Dpo(args) => commands::dpo::run(fetched(args.plan()?)?.join()?),
        Command::Reward(args) => commands::reward::run(fetched(args.plan()?)?.join()?),
        Command::Generate(args) => commands::generate::run(fetched(args.plan()?)?),
        Command::Chat(args) => commands::chat::run(fetched(args.plan()?)?),
        Command::Score(args) => commands::score::run(fetched(args.plan()?)?),
        Command::Judge(args) => commands::judge::run(fetched(args.plan()?)?),
        Command::Eval(args) => match args.judgements_alone()? {
            Some(plan) => commands::judgements::run(plan),
            None => commands::eval::run(fetched(args.plan()?)?),
        },
        Command::Report(args) => commands::report::run(args.plan()?),
        Command::Export(args) => commands::export::run(fetched(args.plan()?)?),
        Command::Models(args) => commands::models::run(args.plan()),
        Command::Doctor(args) => commands::doctor::run(args.plan()?),
        Command::Bench(args) => commands::bench::run(fetched(args.plan()?)?),
        Command::Completions(args) => commands::shell::completions(args.shell),
        Command::Man(args) => commands::shell::man(&args.dir),
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Config { .. } => 2,
        Error::Interrupted => signals::exit_code(),
        _ => 1,
    }
}

/// Writes a line of results to standard output: unchanged to a file or a pipe, [`printable`] to a terminal.
pub(crate) fn print(line: impl Display) -> Result<()> {
    if ranks::is_silent() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let written = match out.is_terminal() {
        true => writeln!(out, "{}", printable(&line.to_string())),
        false => writeln!(out, "{line}"),
    };
    written.map_err(Error::io("write to", STANDARD_OUTPUT))
}

/// Writes a part of a line to standard output and flushes it.
pub(crate) fn print_part(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = match out.is_terminal() {
        true => write!(out, "{}", printable(text)),
        false => write!(out, "{text}"),
    };
    written.and_then(|()| out.flush()).map_err(Error::io("write to", STANDARD_OUTPUT))
}

/// Checks that these words are a valid command line of the program.
#[cfg(test)]
fn understood(words: Vec<String>) -> Result<(), String> {
    let parsed = parse(words.into_iter().map(OsString::from).collect()).map_err(|e| e.to_string())?;
    parsed.map(drop).map_err(|usage| usage.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_and_log_are_accepted_before_and_after_the_command() {
        for line in
            ["oaif -q doctor --log json", "oaif --log json doctor -q", "oaif --log=json --quiet doctor"]
        {
            let cli = parse(command_first(line.split(' ').map(OsString::from).collect())).unwrap().unwrap();
            assert!(cli.quiet && cli.log == console::Format::Json, "{line}");
        }
    }

    #[test]
    fn a_usage_error_is_one_sentence() {
        let error = |arguments: &str| {
            let arguments = arguments.split(' ').map(OsString::from).collect();
            sentence(&parse(arguments).unwrap().unwrap_err())
        };
        let typing = error("oaif dpo --model x --dataset x --output-dir x --lerning-rate 1");
        let expected = "unexpected argument '--lerning-rate' found; a similar argument exists: '--learning-rate'; \
                        see --help";
        assert_eq!(typing, expected);
        let missing = error("oaif score --model x");
        assert!(missing.contains("not provided: --input <FILE>;") && !missing.contains('\n'), "{missing}");
        let value = error("oaif dpo --model x --dataset x --output-dir x --optim sgd");
        assert!(value.contains("[possible values: adamw, adafactor];"), "{value}");
        let number = |flag: &str| error(&format!("oaif dpo --model x --dataset x --output-dir x {flag}"));
        for (flag, expected) in [
            ("--max-steps=x", "invalid value 'x' for '--max-steps <N>': expected a whole number; see --help"),
            (
                "--lora-r=-1",
                "invalid value '-1' for '--lora-r <R>': expected a whole number, 0 or larger; see --help",
            ),
            (
                "--max-steps=99999999999999999999",
                "invalid value '99999999999999999999' for '--max-steps <N>': it is too large; see --help",
            ),
            ("--beta=x", "invalid value 'x' for '--beta <B>': expected a number; see --help"),
        ] {
            assert_eq!(number(flag), expected);
        }
    }

    #[test]
    fn exit_codes_distinguish_wrong_usage_failure_and_interruption() {
        assert_eq!(exit_code(&Error::config("--beta", "is odd")), 2);
        assert_eq!(exit_code(&Error::Interrupted), 130);
        assert_eq!(exit_code(&Error::file("x", "is odd")), 1);
    }
}
