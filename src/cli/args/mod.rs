//! The commands and their flags. `plan()` checks every value and turns the flags into the library's options; the
//! commands do the reading, building and running.

mod bench;
mod chat;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod eval;
mod examples;
mod export;
pub(in crate::unstable::cli) mod foreign;
mod generate;
mod gpu;
mod held_out;
mod judge;
mod judge_pairs;
mod lora;
mod loss;
mod models;
#[cfg(feature = "http")]
mod openai;
mod optimisation;
mod paths;
mod policy;
mod report;
mod sampling;
mod score;
mod shell;
mod train;
mod train_plans;

use std::fmt::Display;

use clap::{CommandFactory, Parser, Subcommand};
use serde::Serialize;
use serde_json::Value;

pub(crate) use bench::{BenchPlan, Form, Suite};
pub(crate) use chat::ChatPlan;
#[cfg(feature = "demo")]
pub(crate) use demo::DemoPlan;
pub(crate) use doctor::DoctorPlan;
pub(crate) use eval::{EvalPlan, JudgementsPlan};
pub(crate) use export::{ExportFormat, ExportPlan};
pub(crate) use generate::{GeneratePlan, Prompts};
pub(crate) use held_out::HeldOut;
pub(crate) use judge::flags_of_judges;
pub(crate) use judge_pairs::JudgePlan;
pub(crate) use loss::flags_of_losses;
pub(crate) use models::ModelsPlan;
pub(crate) use report::ReportPlan;
pub(crate) use score::ScorePlan;
pub(crate) use train_plans::{AlignPlan, DpoPlan, RewardPlan, SftPlan, TrainPlan};

use super::console::Format;
use super::version;
use crate::error::{Error, Result};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "oaif",
    version,
    long_version = version::LONG,
    about,
    after_help = examples::FIRST,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Print only warnings, errors and results: no progress, no summary
    #[arg(long, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Format of the messages on standard error
    #[arg(long, global = true, help_heading = "Output", value_enum, value_name = "FORMAT", default_value_t)]
    pub log: Format,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a demonstration: align a small built-in model with a built-in judge, and write a report
    #[cfg(feature = "demo")]
    Demo(Box<demo::DemoArgs>),
    /// Train with online feedback: sample responses, judge them, update the policy
    Align(Box<train::AlignArgs>),
    /// Supervised fine-tuning on {"text"}, {"messages"} or {"prompt","completion"} rows
    Sft(Box<train::SftArgs>),
    /// Offline preference optimisation (DPO and others) on {"prompt","chosen","rejected"} rows
    Dpo(Box<train::DpoArgs>),
    /// Train a reward model on {"prompt","chosen","rejected"} rows
    Reward(Box<train::RewardArgs>),
    /// Generate responses with a model
    Generate(Box<generate::GenerateArgs>),
    /// Chat with a model in the terminal
    Chat(Box<chat::ChatArgs>),
    /// Compute the log-probabilities of {"prompt","completion"} rows
    Score(Box<score::ScoreArgs>),
    /// Compare the responses of {"prompt","response_1","response_2"} rows with a judge
    Judge(Box<judge_pairs::JudgePairsArgs>),
    /// Compare a policy with its starting model, another model or reference responses: win rate, confidence interval, report
    Eval(Box<eval::EvalArgs>),
    /// Write the report of a run, or a page that compares several runs
    Report(Box<report::ReportArgs>),
    /// Merge a LoRA adapter into its model, or convert a model to another format (safetensors, GGUF)
    Export(Box<export::ExportArgs>),
    /// List the supported model families and the models in the Hugging Face cache
    Models(Box<models::ModelsArgs>),
    /// List the GPUs and test the kernels on one of them
    Doctor(Box<doctor::DoctorArgs>),
    /// Benchmark kernels and training steps, relative to the GPU's measured peak rates
    Bench(Box<bench::BenchArgs>),
    /// Print a shell completion script
    Completions(shell::CompletionsArgs),
    /// Write man pages to a folder
    Man(shell::ManArgs),
}

/// The one-letter forms of flags, in all commands that have the flag.
const LETTERS: [(&str, char); 10] = [
    ("model", 'm'),
    ("dataset", 'd'),
    ("output-dir", 'o'),
    ("output", 'o'),
    ("judge", 'j'),
    ("prompt", 'p'),
    ("max-new-tokens", 'n'),
    ("input", 'i'),
    ("seed", 's'),
    ("quiet", 'q'),
];

/// The commands and flags. Flag names are also accepted with underscores, as in scripts for other trainers.
pub(crate) fn command() -> clap::Command {
    let lenient = |arg: clap::Arg| {
        let own = arg.get_long().into_iter().map(str::to_owned);
        let aliases = arg.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned);
        let names: Vec<String> = own.chain(aliases).collect();
        // "-1" is the value of the flag before it, valid or not.
        let takes_value = arg.get_action().takes_values();
        let arg = if takes_value { arg.allow_negative_numbers(true) } else { arg };
        let letter = LETTERS.iter().find(|(long, _)| arg.get_long() == Some(long));
        let arg = letter.map_or(arg.clone(), |(_, letter)| arg.short(*letter));
        names.into_iter().filter(|name| name.contains('-')).fold(arg, |arg, name| {
            // clap needs names of static lifetime; about a hundred are leaked, once.
            arg.alias(&*name.replace('-', "_").leak())
        })
    };
    Cli::command().mut_args(lenient).mut_subcommands(|sub| examples::add(sub.mut_args(lenient)))
}

/// A usage error: the value `found` of `flag` is not `expected`.
fn unusable<T>(flag: &str, found: impl Display, expected: &str) -> Result<T> {
    Err(Error::config(flag, format!("{found} is not {expected}")))
}

fn ensure(ok: bool, flag: &str, found: impl Display, expected: &str) -> Result<()> {
    if ok { Ok(()) } else { unusable(flag, found, expected) }
}

/// The f64 of the shortest decimal text of an f32, rather than its binary expansion.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().expect("a float's own text")
}

/// An upper limit of counts: far above any use, and small enough that a product of three does not overflow.
const LARGEST_COUNT: usize = 1_000_000;

fn positive(flag: &str, value: usize) -> Result<usize> {
    ensure(value > 0, flag, value, "1 or more")?;
    ensure(value <= LARGEST_COUNT, flag, value, &format!("at most {LARGEST_COUNT}")).map(|()| value)
}

/// The names of a group's flags.
fn flag_names<A: clap::Args>() -> Vec<String> {
    let group = A::augment_args(clap::Command::new("flags"));
    group.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

/// The first flag that is given, except those in `but`. A flag counts as not given if its value is null, false or an empty
/// list.
fn first_given(args: &impl Serialize, but: &[&str]) -> Option<String> {
    let Ok(Value::Object(flags)) = serde_json::to_value(args) else { unreachable!("flags of plain values") };
    let is_given = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let given = flags.iter().find(|(name, value)| is_given(value) && !but.contains(&name.as_str()));
    given.map(|(name, _)| format!("--{name}"))
}

#[cfg(test)]
mod tests;
