//! Flags of the judge, which compares two responses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, FromArgMatches, ValueEnum};
use serde::Serialize;

#[cfg(feature = "http")]
use super::first_given;
#[cfg(feature = "http")]
use super::openai::OpenAiArgs;
use super::paths::{InputPath, given, model_dir};
use super::{flag_names, positive};
use crate::cli::config_file;
use crate::error::{Error, Result};
use crate::files;
use crate::judge::command::CommandJudge;
use crate::judge::config::{JudgeConfig, LocalModel};
use crate::judge::ensemble::Vote;
use crate::judge::human::Desk;
use crate::judge::judge_model::DEFAULT_MAX_LENGTH;
use crate::judge::likelihood::{DEFAULT_TEMPLATE, Normalise};
use crate::judge::llm::Orders;
use crate::judge::rule::Rule;
use crate::judge::template::JudgeTemplate;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// A language model that reads both responses and answers "1" or "2"
    Llm,
    /// A language model that prefers the response with the higher log-probability
    Likelihood,
    /// A reward model, such as one trained by oaif reward
    Reward,
    /// A simple rule, such as the shorter response
    Rule,
    /// Your own program
    Command,
    /// A person, in the terminal; in oaif align also on a web page
    Human,
    /// Several judges, whose verdicts are combined
    Ensemble,
    /// A server with the OpenAI API: vLLM, SGLang, Ollama, llama.cpp, …
    #[cfg(feature = "http")]
    #[value(name = "openai")]
    #[serde(rename = "openai")]
    OpenAi,
}

impl Kind {
    fn name(self) -> String {
        self.to_possible_value().expect("no kind is skipped").get_name().to_owned()
    }
}

impl ValueEnum for Normalise {
    fn value_variants<'a>() -> &'a [Normalise] {
        &[Normalise::Sum, Normalise::Token, Normalise::Character]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Normalise::Sum => PossibleValue::new("sum").help("Log-probability of the whole response"),
            Normalise::Token => PossibleValue::new("token").help("Log-probability per token"),
            Normalise::Character => PossibleValue::new("character").help("Log-probability per character"),
        })
    }
}

impl ValueEnum for Vote {
    fn value_variants<'a>() -> &'a [Vote] {
        &[Vote::Mean, Vote::Majority]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Vote::Mean => PossibleValue::new("mean").help("Mean of the judges' probabilities"),
            Vote::Majority => PossibleValue::new("majority").help("Fraction of the judges' votes"),
        })
    }
}

impl ValueEnum for Orders {
    fn value_variants<'a>() -> &'a [Orders] {
        &[Orders::Both, Orders::One]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Orders::Both => PossibleValue::new("both").help("Both orders, averaged"),
            Orders::One => PossibleValue::new("one").help("Only the given order"),
        })
    }
}

/// The protocol of `--judge command`, for the end of --help. clap wraps its lines.
pub(super) const PROTOCOL: &str = concat!(
    "The program of --judge command is started once for each batch of pairs. It reads one JSON object per line from ",
    "standard input until its end, prints one JSON object per line to standard output, in any order, and exits with code 0:\n\n",
    r#"  reads   {"id": "…", "prompt": "…", "response_1": "…", "response_2": "…"}"#,
    "\n",
    r#"  prints  {"id": "…", "verdict": "1"}"#,
    "\n\n",
    r#"The id identifies the pair and is returned unchanged. The verdict is "1" or "2" for the better response, "tie" or "#,
    r#""invalid". Optional keys: "p_first", the probability (0 to 1) that response 1 is better, and "why", an explanation."#,
);

// All flags are optional, to distinguish a flag that was given from its default: flags of other judges are refused.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Judge")]
#[serde(rename_all = "kebab-case")]
pub(crate) struct JudgeArgs {
    /// Judge that compares the responses
    #[arg(long, value_name = "KIND")]
    judge: Option<Kind>,
    /// Model of the judge: a folder, a GGUF file, or ORG/NAME[@REVISION] on the Hugging Face Hub (llm, likelihood, reward); its
    /// name on the server (openai)
    #[arg(long, value_name = "DIR|NAME")]
    judge_model: Option<PathBuf>,
    /// Maximum number of tokens of a text that the judge's model reads, template included; at most the model's context. The
    /// verdicts of pairs with longer texts are invalid (llm, likelihood, reward) [default: 1024]
    #[arg(long, value_name = "N")]
    judge_max_length: Option<usize>,
    /// LoRA adapter of the reward model, including its head (reward)
    #[arg(long, value_name = "DIR")]
    judge_adapter: Option<PathBuf>,
    /// Score responses without an end-of-sequence token, for a reward model that was trained without it (reward)
    #[arg(long)]
    judge_no_append_eos: bool,
    /// Template of the judge's prompt. llm, openai: summarisation, helpfulness, helpfulness-short, helpfulness-very-short,
    /// harmlessness, or a file with {{ prompt }}, {{ response_1 }} and {{ response_2 }} [default: helpfulness]. likelihood: a
    /// file or a text, placed before each response [default: "{{ prompt }}"]
    #[arg(long, value_name = "NAME|FILE|TEXT", allow_hyphen_values = true)]
    judge_template: Option<String>,
    /// Text of {{ instruction }} in the template (llm, likelihood, openai)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    judge_instruction: Option<String>,
    /// Normalisation of the log-probabilities that are compared (likelihood) [default: sum]
    #[arg(long, value_name = "BY")]
    judge_normalise: Option<Normalise>,
    /// Rule: shorter, longer, contains:REGEX, not-contains:REGEX, more:REGEX or starts-with:TEXT (rule)
    #[arg(long, value_name = "RULE")]
    judge_rule: Option<String>,
    /// Command line of a program that reads pairs and prints verdicts as JSON lines (command)
    #[arg(long, value_name = "CMD")]
    judge_command: Option<String>,
    /// Timeout for a batch of pairs (command) or a request (openai) [default: 60]
    #[arg(long, value_name = "SECONDS")]
    judge_timeout: Option<f64>,
    /// Orders in which a pair is presented to the judge (llm, openai) [default: both]
    #[arg(long, value_name = "ORDERS")]
    judge_orders: Option<Orders>,
    /// Judge of the ensemble: a .yaml, .toml or .json file of its --judge flags (judge, judge-model, …); relative paths start at
    /// the working folder; repeat it for each judge (ensemble)
    #[arg(long, value_name = "FILE")]
    judge_member: Vec<PathBuf>,
    /// How the judges' verdicts are combined into one probability (ensemble) [default: mean]
    #[arg(long, value_name = "HOW")]
    judge_vote: Option<Vote>,
    /// The flags in the files of --judge-member, set by [`JudgeArgs::plan`].
    #[arg(skip)]
    #[serde(skip)]
    members: Vec<JudgeArgs>,
    #[cfg(feature = "http")]
    #[command(flatten)]
    #[serde(flatten)]
    openai: OpenAiArgs,
}

impl JudgeArgs {
    /// The files and folders that the judge reads, with their flags. After [`JudgeArgs::plan`], with those of the members of
    /// an ensemble.
    pub fn inputs(&self) -> Vec<InputPath> {
        let mut inputs = given([
            ("--judge-model", self.judge_model.clone()),
            ("--judge-adapter", self.judge_adapter.clone()),
            ("--judge-template", self.judge_template.as_ref().map(PathBuf::from)),
        ]);
        #[cfg(feature = "http")]
        inputs.extend(self.openai.inputs());
        inputs.extend(self.judge_member.iter().map(|file| ("--judge-member", file.clone())));
        inputs.extend(self.members.iter().flat_map(JudgeArgs::inputs));
        inputs
    }

    pub fn plan(&mut self) -> Result<JudgeConfig> {
        let Some(kind) = self.judge else {
            let why = "no judge is given: use --judge llm, --judge likelihood or --judge reward (with \
                       --judge-model DIR), --judge openai (with --judge-url URL), --judge rule (with \
                       --judge-rule RULE), --judge command (with --judge-command CMD), --judge human, or --judge \
                       ensemble (with --judge-member FILE, for each judge)";
            return Err(Error::config("--judge", why));
        };
        self.refuse_flags_of_others(kind)?;
        match kind {
            Kind::Llm => self.llm(),
            Kind::Likelihood => self.likelihood(),
            Kind::Reward => Ok(JudgeConfig::Reward {
                model: self.model("--judge reward")?,
                adapter: self.judge_adapter.clone(),
                append_eos: !self.judge_no_append_eos,
            }),
            Kind::Rule => Ok(JudgeConfig::Rule(Rule::parse(needed(
                &self.judge_rule,
                "--judge rule",
                "--judge-rule RULE",
            )?)?)),
            Kind::Command => {
                let command = needed(&self.judge_command, "--judge command", "--judge-command CMD")?;
                let command = command.clone();
                Ok(JudgeConfig::Command(CommandJudge::new(&command, self.timeout()?)?))
            }
            Kind::Human => Ok(JudgeConfig::Human(Arc::new(Desk::new()))),
            Kind::Ensemble => self.ensemble(),
            #[cfg(feature = "http")]
            Kind::OpenAi => self.openai(),
        }
    }

    fn ensemble(&mut self) -> Result<JudgeConfig> {
        if self.judge_member.len() < 2 {
            return Err(Error::config("--judge ensemble", "needs --judge-member FILE twice or more"));
        }
        let planned = self.judge_member.iter().map(|file| member(file)).collect::<Result<Vec<_>>>()?;
        let (args, members): (Vec<JudgeArgs>, Vec<JudgeConfig>) = planned.into_iter().unzip();
        self.members = args;
        if members.iter().filter(|member| member.desk().is_some()).count() > 1 {
            let why = "gives --judge human twice: there is only one terminal and one page";
            return Err(Error::config("--judge-member", why));
        }
        Ok(JudgeConfig::Ensemble { vote: *self.judge_vote.get_or_insert_default(), members })
    }

    fn timeout(&mut self) -> Result<Duration> {
        seconds_of("--judge-timeout", *self.judge_timeout.get_or_insert(60.0))
    }

    #[cfg(feature = "http")]
    fn openai(&mut self) -> Result<JudgeConfig> {
        let model = needed(&self.judge_model, "--judge openai", "--judge-model NAME")?;
        let model = model.to_string_lossy().into_owned();
        let template = Box::new(self.template()?);
        let orders = *self.judge_orders.get_or_insert_default();
        let timeout = self.timeout()?;
        let instruction = self.judge_instruction.as_deref();
        let options = Box::new(self.openai.plan(model, orders, timeout, instruction)?);
        Ok(JudgeConfig::OpenAi { options, template })
    }

    fn llm(&mut self) -> Result<JudgeConfig> {
        let model = self.model("--judge llm")?;
        let template = Box::new(self.template()?);
        let orders = *self.judge_orders.get_or_insert_default();
        Ok(JudgeConfig::Llm { model, template, orders })
    }

    /// The template of a judge that answers "1" or "2".
    fn template(&mut self) -> Result<JudgeTemplate> {
        let name = self.judge_template.get_or_insert_with(|| "helpfulness".into());
        let path = Path::new(name.as_str());
        let looks_like_file = path.is_file() || path.extension().is_some() || path.components().count() > 1;
        let template =
            if looks_like_file { JudgeTemplate::from_file(path)? } else { JudgeTemplate::builtin(name)? };
        match &self.judge_instruction {
            Some(instruction) => template.with_instruction(instruction),
            None => Ok(template),
        }
    }

    fn likelihood(&mut self) -> Result<JudgeConfig> {
        let model = self.model("--judge likelihood")?;
        let given = self.judge_template.get_or_insert_with(|| DEFAULT_TEMPLATE.into());
        let path = Path::new(given.as_str());
        let template = match (given.contains("{{"), path.is_file()) {
            (_, true) => files::read_text(path)?,
            (true, false) => given.clone(),
            (false, false) => {
                let why = format!(
                    "{given:?} is neither a file nor a template: give a file, or a text that contains {{{{ prompt }}}}"
                );
                return Err(Error::config("--judge-template", why));
            }
        };
        let instruction = self.judge_instruction.clone().unwrap_or_default();
        let normalise = *self.judge_normalise.get_or_insert_default();
        Ok(JudgeConfig::Likelihood { model, template, instruction, normalise })
    }

    fn model(&mut self, who: &str) -> Result<LocalModel> {
        let path = model_dir("--judge-model", needed(&self.judge_model, who, "--judge-model DIR")?)?;
        let max_length = *self.judge_max_length.get_or_insert(DEFAULT_MAX_LENGTH);
        Ok(LocalModel { path, max_length: positive("--judge-max-length", max_length)? })
    }

    fn refuse_flags_of_others(&self, kind: Kind) -> Result<()> {
        use Kind::*;
        #[cfg(feature = "http")]
        if let Some(flag) = first_given(&self.openai, &[]).filter(|_| kind != OpenAi) {
            return Err(not_used(&flag, kind, &[OpenAi]));
        }
        // Without the feature there are no flags of servers.
        #[cfg(not(feature = "http"))]
        const SERVERS: Kind = Llm;
        #[cfg(feature = "http")]
        const SERVERS: Kind = OpenAi;
        let flags: [(&str, bool, &[Kind]); 13] = [
            ("--judge-model", self.judge_model.is_some(), &[Llm, Likelihood, Reward, SERVERS]),
            ("--judge-max-length", self.judge_max_length.is_some(), &[Llm, Likelihood, Reward]),
            ("--judge-adapter", self.judge_adapter.is_some(), &[Reward]),
            ("--judge-no-append-eos", self.judge_no_append_eos, &[Reward]),
            ("--judge-template", self.judge_template.is_some(), &[Llm, Likelihood, SERVERS]),
            ("--judge-instruction", self.judge_instruction.is_some(), &[Llm, Likelihood, SERVERS]),
            ("--judge-normalise", self.judge_normalise.is_some(), &[Likelihood]),
            ("--judge-rule", self.judge_rule.is_some(), &[Rule]),
            ("--judge-command", self.judge_command.is_some(), &[Command]),
            ("--judge-timeout", self.judge_timeout.is_some(), &[Command, SERVERS]),
            ("--judge-orders", self.judge_orders.is_some(), &[Llm, SERVERS]),
            ("--judge-member", !self.judge_member.is_empty(), &[Ensemble]),
            ("--judge-vote", self.judge_vote.is_some(), &[Ensemble]),
        ];
        match flags.into_iter().find(|(_, given, owners)| *given && !owners.contains(&kind)) {
            Some((flag, _, owners)) => Err(not_used(flag, kind, owners)),
            None => Ok(()),
        }
    }
}

/// The error about a flag that the judge does not use; `owners` do.
fn not_used(flag: &str, kind: Kind, owners: &[Kind]) -> Error {
    let mut names: Vec<String> = owners.iter().map(|kind| kind.name()).collect();
    names.dedup();
    let (judge, others) = (kind.name(), names.join(" or "));
    Error::config(flag, format!("is not used by --judge {judge}: leave it out, or use --judge {others}"))
}

/// The names of the judge's flags.
pub(crate) fn flags_of_judges() -> Vec<String> {
    flag_names::<JudgeArgs>()
}

impl JudgeArgs {
    /// Reads a file of a judge's flags, which was given with `flag`.
    pub fn of_file(flag: &str, file: &Path) -> Result<JudgeArgs> {
        let command = JudgeArgs::augment_args(clap::Command::new("judge"));
        let flags =
            config_file::flags_in(&command, file).map_err(|error| Error::config(flag, error.to_string()))?;
        let given = command.try_get_matches_from(std::iter::once("judge".into()).chain(flags));
        let parsed = given.and_then(|given| JudgeArgs::from_arg_matches(&given));
        parsed.map_err(|error| {
            // The first line of clap's message.
            let text = error.to_string();
            let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Error::config(format!("{flag} {}", file.display()), why)
        })
    }
}

/// A judge of an ensemble, from a file of its flags, and these flags.
fn member(file: &Path) -> Result<(JudgeArgs, JudgeConfig)> {
    let flag = "--judge-member";
    let refuse = |why: String| Error::config(format!("{flag} {}", file.display()), why);
    let mut args = JudgeArgs::of_file(flag, file)?;
    if args.judge == Some(Kind::Ensemble) {
        return Err(refuse("is an ensemble itself: give its judges as members of this ensemble".into()));
    }
    let planned = args.plan().map_err(|error| refuse(error.to_string()))?;
    Ok((args, planned))
}

/// Parses a positive number of seconds.
pub(super) fn seconds_of(flag: &str, seconds: f64) -> Result<Duration> {
    let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero());
    time.ok_or_else(|| Error::config(flag, format!("{seconds} is not a number of seconds above 0")))
}

fn needed<'a, T>(value: &'a Option<T>, who: &str, flag: &str) -> Result<&'a T> {
    value.as_ref().ok_or_else(|| Error::config(who, format!("needs {flag}")))
}
