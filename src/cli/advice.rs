//! Rewrites errors of the library for the command line: options are named by their flags, and the advice uses flags of the
//! command that failed.

use clap::Command;

use crate::data::rows::OR_NAMED_BY;
use crate::error::{Error, Remedy};

/// Flags that reduce memory, in the order in which they are worth trying.
const SMALLER: [&str; 7] = [
    "per-device-train-batch-size",
    "max-prompt-length",
    "max-length",
    "max-new-tokens",
    "slots",
    "gradient-checkpointing",
    "lora-r",
];

/// `error` as one sentence for the user of `command`.
pub(super) fn sentence(error: Error, command: Option<&Command>) -> String {
    let has = |flag: &str| command.is_some_and(|c| c.get_arguments().any(|arg| arg.get_long() == Some(flag)));
    let error = match error {
        // The library names an option like its flag, without the dashes.
        Error::Config { what, why } if has(&what) => Error::Config { what: format!("--{what}"), why },
        other => other,
    };
    match error {
        Error::Limit { remedy, .. } | Error::OutOfMemory { remedy, .. } => {
            let (text, general) = (error.to_string(), remedy.to_string());
            let cause = text.strip_suffix(&general).expect("the remedy comes last");
            format!("{cause}{}", in_flags(remedy, has).unwrap_or(general))
        }
        Error::NonFinite { count } if has("learning-rate") => {
            let rates = if has("beta") { "--learning-rate or --beta" } else { "--learning-rate" };
            format!(
                "{count} steps in a row had a loss or gradient that is not finite: lower {rates}, or check the data of these \
                 steps"
            )
        }
        Error::DeviceLost(why) if has("resume-from-checkpoint") => format!(
            "the GPU was lost ({why}): resume from the last checkpoint with --resume-from-checkpoint last; if it happens \
             again, update the driver"
        ),
        Error::DeviceLost(why) => {
            format!("the GPU was lost ({why}): start again; if it happens again, update the driver")
        }
        Error::NoGpu(why) if command.is_some_and(|c| c.get_name() != "doctor") => {
            format!("{why}; `oaif doctor` lists the GPUs")
        }
        other => by_flags(of_columns(other.to_string(), has), has),
    }
}

/// Leaves out the option of a missing column where the command does not have it.
fn of_columns(text: String, has: impl Fn(&str) -> bool) -> String {
    match text.rsplit_once(OR_NAMED_BY) {
        Some((rest, option)) if !has(option.trim_matches('`')) => rest.to_owned(),
        _ => text,
    }
}

/// Replaces options in backticks, such as `` `max-length` ``, by flags if the command has them.
fn by_flags(text: String, has: impl Fn(&str) -> bool) -> String {
    let mut parts = text.split('`');
    let mut out = parts.next().unwrap_or_default().to_owned();
    while let (Some(name), Some(rest)) = (parts.next(), parts.next()) {
        let named = if has(name) { format!("--{name}") } else { format!("`{name}`") };
        out = out + &named + rest;
    }
    // With an unclosed backtick the text is left unchanged.
    if text.matches('`').count().is_multiple_of(2) { out } else { text }
}

/// The remedy in terms of the command's flags, if it has any that apply.
fn in_flags(remedy: Remedy, has: impl Fn(&str) -> bool) -> Option<String> {
    match remedy {
        Remedy::SmallerBatch if has("input") => Some("shorten the rows".into()),
        // A smaller batch: not the last two, which concern weights and activations.
        Remedy::SmallerBatch => suggestion(&SMALLER[..5], has),
        Remedy::LowerRank if has("lora-r") && has("adapter") => {
            Some("lower --lora-r, or use an --adapter of a lower rank".into())
        }
        Remedy::LowerRank if has("lora-r") => Some("lower --lora-r".into()),
        Remedy::FewerTrained if has("lora-r") => Some("use --lora-r, or a smaller model".into()),
        Remedy::LessMemory if has("input") => Some("shorten the rows, or use a smaller model".into()),
        Remedy::LessMemory => suggestion(&SMALLER, has),
        _ => None,
    }
}

/// "lower --a, --b or --c, or use --d or --e", with the flags that the command has.
fn suggestion(flags: &[&str], has: impl Fn(&str) -> bool) -> Option<String> {
    let listed = |flags: Vec<&str>| {
        let flags: Vec<String> = flags.into_iter().map(|flag| format!("--{flag}")).collect();
        match flags.split_last() {
            None => None,
            Some((last, [])) => Some(last.clone()),
            Some((last, others)) => Some(format!("{} or {last}", others.join(", "))),
        }
    };
    let (used, lowered): (Vec<&str>, Vec<&str>) = flags
        .iter()
        .filter(|flag| has(flag))
        .partition(|flag| ["gradient-checkpointing", "lora-r"].contains(flag));
    match (listed(lowered), listed(used)) {
        (Some(lowered), Some(used)) => Some(format!("lower {lowered}, or use {used}")),
        (Some(lowered), None) => Some(format!("lower {lowered}")),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;
    use crate::preference::LossOptions;

    fn advice(error: Error, command: &str) -> String {
        let all = args::command();
        sentence(error, Some(all.find_subcommand(command).unwrap()))
    }

    fn limit(remedy: Remedy) -> Error {
        let what = "gated (8184, 4864)".into();
        Error::Limit { what, needed: 159_227_904, limit: 134_217_728, remedy }
    }

    fn exhausted() -> Error {
        let what = "activations 0".into();
        Error::OutOfMemory { what, bytes: 3 << 30, held: 1 << 30, limit: None, remedy: Remedy::LessMemory }
    }

    #[test]
    fn options_in_backticks_become_flags_of_the_command() {
        let error = || Error::file("run", "holds a run: give another `output-dir`, or `no such` one");
        assert_eq!(advice(error(), "align"), "run: holds a run: give another --output-dir, or `no such` one");
        assert_eq!(
            advice(error(), "doctor"),
            "run: holds a run: give another `output-dir`, or `no such` one"
        );
        assert_eq!(advice(Error::file("run", "has a ` in it"), "align"), "run: has a ` in it");
    }

    #[test]
    fn a_missing_column_is_named_by_a_flag_only_where_the_command_has_it() {
        let why = "no column \"text\" (the row has \"a\"): rename a column of the file to \"text\"";
        let error = || Error::file("rows", format!("{why}{OR_NAMED_BY}`text-column`"));
        assert_eq!(advice(error(), "sft"), format!("rows: {why}, or give its name with --text-column"));
        assert_eq!(advice(error(), "score"), format!("rows: {why}"));
    }

    #[test]
    fn advice_names_only_flags_of_the_command() {
        let all = args::command();
        let errors: [fn() -> Error; 8] = [
            || limit(Remedy::SmallerBatch),
            || limit(Remedy::LowerRank),
            || limit(Remedy::FewerTrained),
            || limit(Remedy::SmallerModel),
            exhausted,
            || Error::NonFinite { count: 5 },
            || Error::DeviceLost("x".into()),
            || Error::NoGpu("none".into()),
        ];
        for command in all.get_subcommands() {
            for error in errors {
                let text = sentence(error(), Some(command));
                for flag in text.split("--").skip(1) {
                    let flag = flag.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap();
                    let has = command.get_arguments().any(|arg| arg.get_long() == Some(flag));
                    assert!(has, "{} has no --{flag}: {text}", command.get_name());
                }
            }
        }
    }

    #[test]
    fn a_limit_is_given_in_mib_with_flags_of_the_command() {
        assert_eq!(
            advice(limit(Remedy::SmallerBatch), "sft"),
            "gated (8184, 4864) needs 152 MiB in one buffer, the GPU allows 128 MiB: lower \
             --per-device-train-batch-size, --max-prompt-length or --max-length"
        );
        assert!(advice(limit(Remedy::SmallerBatch), "align").contains("--max-new-tokens"));
        assert!(
            advice(limit(Remedy::SmallerBatch), "generate").ends_with("lower --max-new-tokens or --slots")
        );
        assert!(advice(limit(Remedy::SmallerBatch), "score").ends_with("shorten the rows"));
        assert!(
            advice(limit(Remedy::SmallerBatch), "bench")
                .ends_with("lower the batch size or the lengths of texts")
        );
        let memory = advice(exhausted(), "dpo");
        assert!(
            memory.contains("3.0 GiB, 1.0 GiB already held")
                && memory.contains("--gradient-checkpointing or --lora-r"),
            "{memory}"
        );
    }

    #[test]
    fn the_advice_depends_on_what_is_too_large() {
        for (remedy, command, expected) in [
            (Remedy::LowerRank, "align", "128 MiB: lower --lora-r, or use an --adapter of a lower rank"),
            (Remedy::LowerRank, "generate", "128 MiB: use a LoRA adapter of a lower rank"),
            (Remedy::FewerTrained, "sft", "128 MiB: use --lora-r, or a smaller model"),
            (Remedy::SmallerModel, "sft", "128 MiB: use a smaller model"),
            (Remedy::SmallerModel, "score", "128 MiB: use a smaller model"),
        ] {
            let text = advice(limit(remedy), command);
            assert!(text.ends_with(expected), "{text}");
        }
    }

    #[test]
    fn an_option_is_named_by_its_flag() {
        let config = |what: &str| Error::config(what, "0 is odd");
        assert_eq!(advice(config("max-new-tokens"), "align"), "--max-new-tokens: 0 is odd");
        assert_eq!(advice(config("beta"), "dpo"), "--beta: 0 is odd");
        assert_eq!(advice(config("max-prompt-length"), "sft"), "--max-prompt-length: 0 is odd");
        // Names that are not flags of the command, and names with dashes, are unchanged.
        assert_eq!(advice(config("beta"), "sft"), "beta: 0 is odd");
        assert_eq!(advice(config("--beta"), "dpo"), "--beta: 0 is odd");
        assert_eq!(advice(config("run.yaml"), "dpo"), "run.yaml: 0 is odd");
    }

    #[test]
    fn the_options_of_the_library_are_flags_of_some_command() {
        let all = args::command();
        for option in [
            "async-level",
            "judge-command",
            "judge-rule",
            "judge-template",
            "learning-rate",
            "lora-target-modules",
            "lr-scheduler-type",
            "max-grad-norm",
            "max-invalid-ratio",
            "max-length",
            "max-new-tokens",
            "max-prompt-length",
            "max-steps",
            "num-samples",
            "save-steps",
            "save-total-limit",
            "shape",
            "slots",
            "tier",
            "weight-decay",
        ]
        .into_iter()
        .chain(LossOptions::NAMES.map(|(name, _)| name))
        {
            let advice = |command| sentence(Error::config(option, "is odd"), Some(command));
            let flag = format!("--{option}: is odd");
            assert!(all.get_subcommands().any(|command| advice(command) == flag), "{option}");
        }
    }

    #[test]
    fn doctor_does_not_suggest_itself() {
        let none = || Error::NoGpu("no GPU was found".into());
        assert_eq!(advice(none(), "doctor"), "no GPU was found");
        assert_eq!(advice(none(), "align"), "no GPU was found; `oaif doctor` lists the GPUs");
    }
}
