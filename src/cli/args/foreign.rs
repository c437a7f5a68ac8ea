//! Command lines written for other trainers: flags that oaif does not have, and switches with a value.
//!
//! Flags of the same meaning are aliases of oaif's flags. The others are handled here: a flag that requests what oaif does
//! anyway is ignored, any other is refused with a suggestion.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

use crate::cli::config_file::SWITCHED_OFF;
use crate::error::{Error, Result};

/// All values are accepted.
const ANY: &[&str] = &["*"];
const OFF: &[&str] = &["false", "none", "no", "0"];

const EVALUATION: &str = "align, dpo and reward evaluate with --eval-dataset FILE, every --eval-steps N; sft does not: leave \
                          it out, and compare afterwards with `oaif eval`";
const PRECISION: &str = "arithmetic is in f32, and frozen weights keep the 16-bit format of their files: leave it out (see \
                         --base-dtype for other formats)";
const QUANTISED: &str = "is not supported: use --base-dtype q8 or q4";
const SPLIT: &str = "the split is part of the dataset's name: leave it out, and give --dataset ORG/NAME:SPLIT, \
                     or the file of the split";
const SUBSET: &str = "the subset is part of the dataset's name: leave it out, and give --dataset ORG/NAME:SUBSET or \
                      ORG/NAME:SUBSET/SPLIT";
const HUB: &str = "uploads are not supported: leave it out, and use `hf upload` on the folder afterwards";
const ONE_GPU: &str = "a process trains on one GPU, which --gpu selects: leave it out";
const LOGS: &str = "logging to other services is not supported: leave it out; metrics.jsonl in the run folder has the metrics \
                    of every step under TRL's names, and --report writes a page";
const REFERENCE: &str =
    "the reference model is the starting model (with --sync-ref-model, it follows the policy): leave it out";
const SAMPLER: &str = "oaif samples responses itself: leave it out";
const TEMPLATE: &str = "the model's own chat template is used: leave it out, or put the file into the model's folder as \
                        chat_template.jinja";
const SAVING: &str = "checkpoints are saved every N steps: use --save-steps N (0: only one at the end)";

/// Flags of other trainers: the name, the values that request what oaif does anyway, and the message for other values.
const FLAGS: &[(&str, &[&str], &str)] = &[
    (
        "adapter",
        &[],
        "is the folder of a LoRA adapter, but this command has no model: leave it out; --gpu selects a GPU",
    ),
    (
        "assistant-only-loss",
        OFF,
        "all messages of a conversation are trained on: leave it out, or give rows of prompt and completion",
    ),
    ("activation-offloading", OFF, "is not supported: use --gradient-checkpointing to save memory"),
    ("attn-implementation", ANY, ""),
    ("average-tokens-across-devices", ANY, ""),
    (
        "auto-find-batch-size",
        OFF,
        "is not supported: use --dry-run to see the memory of a --per-device-train-batch-size",
    ),
    ("bf16", OFF, PRECISION),
    ("chat-template-path", &[], TEMPLATE),
    (
        "completion-only-loss",
        &["true"],
        "rows with a prompt are always trained on the completion only: leave it out",
    ),
    ("data-seed", &[], "the order of rows and sampling have one seed: use --seed"),
    ("dataloader-num-workers", ANY, ""),
    ("dataset-config", &[], SUBSET),
    ("dataset-num-proc", ANY, ""),
    ("dataset-split", &["train"], SPLIT),
    ("dataset-streaming", ANY, ""),
    ("dataset-test-split", ANY, ""),
    ("dataset-train-split", &["train"], SPLIT),
    ("ddp-timeout", ANY, ""),
    ("deepspeed", OFF, ONE_GPU),
    ("device", &[], "use --gpu, with an index or a name listed by `oaif doctor`"),
    ("device-map", &["auto"], ONE_GPU),
    ("disable-dropout", ANY, ""),
    ("disable-tqdm", OFF, "the progress bar is only shown in a terminal: redirect standard error (2>log)"),
    ("do-eval", OFF, EVALUATION),
    ("do-train", &["true"], "this command always trains: leave it out"),
    (
        "eos-token",
        &[],
        "the tokenizer's own token is used: set eos_token in the model's tokenizer_config.json for another",
    ),
    ("eval-dataset", &[], EVALUATION),
    ("eval-steps", ANY, ""),
    ("eval-strategy", OFF, EVALUATION),
    ("evaluation-strategy", OFF, EVALUATION),
    ("f-divergence-type", &["reverse_kl"], "only reverse_kl is supported: leave it out"),
    ("fp16", OFF, PRECISION),
    ("fsdp", OFF, ONE_GPU),
    ("gradient-checkpointing-kwargs", ANY, ""),
    ("group-by-length", OFF, "batches are made of rows in random order: leave it out"),
    ("hub-model-id", &[], HUB),
    (
        "load-best-model-at-end",
        OFF,
        "the model of the last step is saved: use --save-steps to keep earlier ones as checkpoints",
    ),
    ("load-in-4bit", OFF, QUANTISED),
    ("load-in-8bit", OFF, QUANTISED),
    ("logging-dir", &[], LOGS),
    ("logging-first-step", ANY, ""),
    ("logging-steps", ANY, ""),
    ("logging-strategy", ANY, ""),
    ("lora-bias", OFF, "biases of LoRA adapters are not supported: leave it out"),
    ("lora-dropout", OFF, "dropout of LoRA adapters is not supported: leave it out, or give 0"),
    (
        "lora-modules-to-save",
        &[],
        "only the LoRA adapter is trained: leave it out, or use --lora-r 0 to train all weights",
    ),
    ("lora-task-type", &["causal_lm"], "only causal_lm is supported: leave it out"),
    ("max-completion-length", &[], "use --max-length, for prompt and completion together"),
    (
        "model-revision",
        &["main"],
        "the revision is part of the model's name: leave it out, and give --model ORG/NAME@REVISION",
    ),
    ("missing-eos-penalty", OFF, "is not supported, only the judge's verdict counts: leave it out"),
    ("neftune-noise-alpha", OFF, "noise on embeddings is not supported: leave it out"),
    ("packing", ANY, ""),
    ("pad-token", ANY, ""),
    ("padding-free", ANY, ""),
    ("per-device-eval-batch-size", ANY, ""),
    ("precompute-ref-log-probs", ANY, ""),
    ("push-to-hub", OFF, HUB),
    ("ref-model", &[], REFERENCE),
    ("ref-model-name-or-path", &[], REFERENCE),
    ("reference-free", OFF, REFERENCE),
    ("remove-unused-columns", ANY, ""),
    ("reward-model-path", &[], "use --judge reward --judge-model"),
    ("run-name", &[], "a run is named by its folder: use --output-dir"),
    (
        "save-only-model",
        OFF,
        "checkpoints always include the state for resuming: leave it out (--save-steps 0 saves only one, at the end)",
    ),
    ("save-safetensors", &["true"], "models are always saved as safetensors: leave it out"),
    ("save-strategy", &["steps"], SAVING),
    ("tf32", ANY, ""),
    ("torch-compile", ANY, ""),
    (
        "truncation-mode",
        &[],
        "rows that are too long are skipped, not truncated: leave it out, or raise --max-length",
    ),
    ("trust-remote-code", ANY, ""),
    ("use-cpu", OFF, ONE_GPU),
    ("use-dora", OFF, "DoRA is not supported: leave it out"),
    ("use-liger-kernel", ANY, ""),
    ("use-vllm", OFF, SAMPLER),
];

/// Looks up a flag of another trainer with these values: `Ok` if it requests the default behaviour of oaif, `Err` with the message
/// if not. `None` for an unknown flag.
pub(in crate::unstable::cli) fn answer(name: &str, values: &[String]) -> Option<Result<(), &'static str>> {
    let name = name.replace('_', "-").to_lowercase();
    let (_, done_anyway, instead) = FLAGS.iter().find(|(flag, ..)| *flag == name)?;
    let same = |value: &str, done: &&str| {
        let number = |text: &str| text.parse::<f64>().ok();
        **done == *value.to_lowercase() || (number(value).is_some() && number(value) == number(done))
    };
    let done = |value: &str| done_anyway.contains(&"*") || done_anyway.iter().any(|done| same(value, done));
    let all_done = if values.is_empty() { done("true") } else { values.iter().all(|value| done(value)) };
    Some(if all_done { Ok(()) } else { Err(instead) })
}

/// `arguments` (the program's name first) without the flags of other trainers.
///
/// # Errors
/// [`Error::Config`] for a flag of another trainer that requests something that oaif does not do.
pub(in crate::unstable::cli) fn translate(
    command: &Command,
    arguments: Vec<OsString>,
) -> Result<Vec<OsString>> {
    let name = arguments.get(1).and_then(|name| name.to_str()).unwrap_or_default();
    let Some(sub) = command.find_subcommand(name) else { return Ok(arguments) };
    // Flags of all commands are accepted after the command too.
    let flags: Vec<&Arg> = sub.get_arguments().chain(command.get_arguments()).collect();
    let mut out = Vec::new();
    let mut rest = arguments.into_iter().peekable();
    out.extend(rest.by_ref().take(2));
    while let Some(argument) = rest.next() {
        let word = argument.to_str().unwrap_or_default();
        let Some(text) = word.strip_prefix("--").filter(|text| !text.is_empty()) else {
            let value = if ends_before_value(&flags, word) { rest.next() } else { None };
            out.push(argument);
            out.extend(value);
            continue;
        };
        let (flag, inline) = match text.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (text, None),
        };
        match flags.iter().find(|arg| is_called(arg, flag)) {
            // Its value may look like a flag.
            Some(arg) if arg.get_action().takes_values() => {
                out.push(argument.clone());
                out.extend(if inline.is_none() && needs_value(arg) { rest.next() } else { None });
            }
            Some(arg) => {
                let next = rest.peek().and_then(|next| next.to_str()).filter(|_| inline.is_none());
                let value = inline.as_deref().or(next).map(str::to_lowercase);
                let on = match value.as_deref() {
                    Some("true") => Some(true),
                    Some("false") => Some(false),
                    _ => None,
                };
                match (on, inline) {
                    (None, _) => out.push(argument.clone()),
                    (Some(on), inline) => {
                        if inline.is_none() {
                            rest.next();
                        }
                        out.push(match on {
                            true => format!("--{flag}").into(),
                            false => {
                                format!("--{SWITCHED_OFF}={}", arg.get_long().unwrap_or_default()).into()
                            }
                        });
                    }
                }
            }
            None => {
                let mut values: Vec<String> = inline.into_iter().collect();
                let known = answer(flag, &[]).is_some();
                while known && let Some(value) = rest.next_if(|next| !is_flag(&flags, next)) {
                    values.push(value.to_string_lossy().into_owned());
                }
                match answer(flag, &values) {
                    None => out.push(argument.clone()),
                    Some(Ok(())) => {}
                    Some(Err(instead)) => {
                        return Err(Error::config(format!("--{}", flag.replace('_', "-")), instead));
                    }
                }
            }
        }
    }
    Ok(out)
}

fn needs_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.get_num_args().is_none_or(|n| n.min_values() > 0)
}

/// Whether the value of the last flag in a word of one-letter flags, such as `-p` or `-qp`, is the next word.
fn ends_before_value(flags: &[&Arg], word: &str) -> bool {
    let mut letters = word.strip_prefix('-').unwrap_or_default().chars();
    while let Some(letter) = letters.next() {
        match with_letter(flags, letter) {
            // The letters after a flag with a value are its value.
            Some(arg) if arg.get_action().takes_values() => {
                return letters.as_str().is_empty() && needs_value(arg);
            }
            Some(_) => {}
            None => return false,
        }
    }
    false
}

fn with_letter<'a>(flags: &[&'a Arg], letter: char) -> Option<&'a Arg> {
    flags.iter().find(|arg| arg.get_short() == Some(letter)).copied()
}

/// Whether the word begins like a flag: with two dashes, or with a dash and the letter of a flag.
fn is_flag(flags: &[&Arg], word: &OsStr) -> bool {
    let Some(rest) = word.to_str().and_then(|word| word.strip_prefix('-')) else { return false };
    rest.starts_with('-') || rest.chars().next().is_some_and(|letter| with_letter(flags, letter).is_some())
}

/// Whether `name` is the name or an alias of the flag.
pub(in crate::unstable::cli) fn is_called(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name) || arg.get_all_aliases().unwrap_or_default().contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    fn translated(line: &str) -> Result<String> {
        let arguments = line.split(' ').map(OsString::from).collect();
        let out = translate(&args::command(), arguments)?;
        Ok(out.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn flags_that_request_the_default_behaviour_are_ignored() {
        let line = "oaif dpo --logging_steps 10 --model m --do_train --lora_dropout 0.0 --bf16 False \
                    --eval_strategy no --beta 1 --save-strategy steps --trust_remote_code -o run --lora_dropout -0.0";
        assert_eq!(translated(line).unwrap(), "oaif dpo --model m --beta 1 -o run");
    }

    #[test]
    fn flags_that_request_other_behaviour_are_refused_with_a_suggestion() {
        for (flags, parts) in [
            ("--logging_dir x", ["--logging-dir", "metrics.jsonl"]),
            ("--bf16", ["--bf16", "--base-dtype"]),
            ("--fp16 true", ["--fp16", "--base-dtype"]),
            ("--eval_strategy=steps", ["--eval-strategy", "oaif eval"]),
            ("--lora_dropout 0.05", ["--lora-dropout", "give 0"]),
            ("--save_strategy epoch", ["--save-strategy", "--save-steps"]),
            ("--run_name x", ["--run-name", "--output-dir"]),
            ("--load_in_4bit", ["--load-in-4bit", "--base-dtype q8 or q4"]),
        ] {
            let error = translated(&format!("oaif align {flags} --beta 1")).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        assert!(translated("oaif doctor --adapter 1").unwrap_err().to_string().contains("--gpu"));
    }

    #[test]
    fn switches_take_true_and_false_as_other_trainers_do() {
        let on =
            "oaif dpo --gradient_checkpointing True --no-shuffle=false --use-rslora false --report --beta 1";
        let expected = "oaif dpo --gradient_checkpointing --switched-off=no-shuffle --switched-off=use-rslora --report --beta 1";
        assert_eq!(translated(on).unwrap(), expected);
        assert_eq!(translated("oaif dpo --report=maybe").unwrap(), "oaif dpo --report=maybe");
    }

    #[test]
    fn a_value_that_looks_like_a_flag_stays_a_value() {
        for line in [
            "oaif generate --prompt --bf16 --seed 1",
            "oaif generate -m M -p --bf16",
            "oaif generate -m M -qp --bf16",
            "oaif generate -p --bf16 -s 1",
            "oaif generate --prompt true",
            "oaif generate --stop --run-name",
            "oaif bench step --model true",
            "oaif sft --resume-from-checkpoint --no-shuffle",
            "oaif dpo --lerning-rate 1",
            "oaif",
            "oaif nonesuch --bf16",
        ] {
            assert_eq!(translated(line).unwrap(), line);
        }
        // The value of -p is x: --bf16 is a flag.
        for line in ["oaif generate -px --bf16", "oaif generate -p x --bf16", "oaif generate -x --bf16"] {
            assert!(translated(line).unwrap_err().to_string().contains("--bf16"), "{line}");
        }
    }

    #[test]
    fn no_flag_of_oaif_is_in_the_table_of_other_trainers() {
        for sub in
            args::command().get_subcommands().filter(|sub| ["align", "sft", "dpo"].contains(&sub.get_name()))
        {
            for (flag, ..) in FLAGS {
                // Some commands have a flag that others lack.
                let ours = sub.get_arguments().any(|arg| is_called(arg, flag));
                let expected =
                    ["adapter", "eval-dataset", "eval-steps", "max-completion-length"].contains(flag);
                assert!(!ours || expected, "{flag} of {}", sub.get_name());
            }
        }
    }
}
