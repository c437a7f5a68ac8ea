//! The commands' flags, and what they ask for: `plan()` turns them into the library's own options, every value
//! checked, and leaves reading, building and running to the command.

mod bench;
#[cfg(feature = "demo")]
mod demo;
mod eval;
pub(in crate::unstable::cli) mod foreign;
mod gpu;
mod held_out;
mod judge;
mod lora;
mod loss;
#[cfg(feature = "http")]
mod openai;
mod optimisation;
mod paths;
mod sampling;
mod tools;
mod train;
mod train_plans;

use std::fmt::Display;

use clap::{CommandFactory, Parser, Subcommand};
use serde::Serialize;
use serde_json::Value;

pub(crate) use bench::{BenchPlan, Form, Suite};
#[cfg(feature = "demo")]
pub(crate) use demo::DemoPlan;
pub(crate) use eval::{EvalPlan, EvalPrompts, JudgementsPlan, PolicyFiles, Side};
pub(crate) use held_out::HeldOut;
pub(crate) use judge::flags_of_judges;
pub(crate) use loss::flags_of_losses;
pub(crate) use tools::{
    ChatPlan, DoctorPlan, ExportFormat, ExportPlan, GeneratePlan, JudgePlan, ModelsPlan, Prompts, ReportPlan,
    ScorePlan,
};
pub(crate) use train_plans::{AlignPlan, DpoPlan, RewardPlan, SftPlan, TrainPlan};

use crate::error::{Error, Result};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "oaif", version, about, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See it work: align the small policy that the program carries, by its own judges, with a report at the end
    #[cfg(feature = "demo")]
    Demo(Box<demo::DemoArgs>),
    /// Align a model online: prompts → samples → judge → loss → update
    Align(Box<train::AlignArgs>),
    /// Train on the next token of {"text"} or {"prompt","completion"} rows
    Sft(Box<train::SftArgs>),
    /// Train on given preferences, {"prompt","chosen","rejected"} rows
    Dpo(Box<train::DpoArgs>),
    /// Train a reward model on given preferences, {"prompt","chosen","rejected"} rows
    Reward(Box<train::RewardArgs>),
    /// Sample from a model
    Generate(Box<tools::GenerateArgs>),
    /// Talk with a model
    Chat(Box<tools::ChatArgs>),
    /// Log-probabilities of {"prompt","completion"} rows
    Score(Box<tools::ScoreArgs>),
    /// Judge {"prompt","response_1","response_2"} rows
    Judge(Box<tools::JudgePairsArgs>),
    /// Compare a policy with its start, another policy or reference answers, by a judge: win rate with interval, a report
    Eval(Box<eval::EvalArgs>),
    /// Write a run's report.html, or a page that compares runs
    Report(Box<tools::ReportArgs>),
    /// Merge a LoRA adapter into its model, or store a model in another float format
    Export(Box<tools::ExportArgs>),
    /// List the families of models that run, and the models in the hub's cache
    Models(Box<tools::ModelsArgs>),
    /// Show the GPUs and test the kernels on one
    Doctor(Box<tools::DoctorArgs>),
    /// Time kernels and steps on a GPU beside its measured ceilings
    Bench(Box<bench::BenchArgs>),
}

/// The commands and flags. Each name of a flag may be written with underscores too, as scripts for other trainers do.
pub(crate) fn command() -> clap::Command {
    let lenient = |arg: clap::Arg| {
        let own = arg.get_long().into_iter().map(str::to_owned);
        let aliases = arg.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned);
        let names: Vec<String> = own.chain(aliases).collect();
        // "-1" is a value of the flag before it, be it a good one or not.
        let takes_value = arg.get_action().takes_values();
        let arg = if takes_value { arg.allow_negative_numbers(true) } else { arg };
        names.into_iter().filter(|name| name.contains('-')).fold(arg, |arg, name| {
            // clap wants names that live as long as the program; there are a hundred, made once.
            arg.alias(&*name.replace('-', "_").leak())
        })
    };
    Cli::command().mut_subcommands(|sub| sub.mut_args(lenient))
}

/// The usage error about `flag`: it is `found`, not what it should be.
fn unusable<T>(flag: &str, found: impl Display, expected: &str) -> Result<T> {
    Err(Error::config(flag, format!("{found} is not {expected}")))
}

fn ensure(ok: bool, flag: &str, found: impl Display, expected: &str) -> Result<()> {
    if ok { Ok(()) } else { unusable(flag, found, expected) }
}

/// The shortest number that is this f32, not its binary expansion.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().expect("a float's own text")
}

/// Far above any use, and small enough that a product of three of them is no overflow.
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

/// The first of these flags that is given, except those named: one is not given whose value is absent, false or an empty list.
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
