//! Who compares two responses.

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
use super::paths::model_dir;
use super::{ensure, flag_names};
use crate::cli::config_file;
use crate::error::{Error, Result};
use crate::files;
use crate::judge::command::CommandJudge;
use crate::judge::config::JudgeConfig;
use crate::judge::ensemble::Vote;
use crate::judge::human::Desk;
use crate::judge::likelihood::{DEFAULT_TEMPLATE, Normalise};
use crate::judge::llm::Orders;
use crate::judge::rule::Rule;
use crate::judge::template::JudgeTemplate;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// A language model reads both responses and answers "1" or "2"
    Llm,
    /// The response that a language model finds more probable
    Likelihood,
    /// A reward model, such as oaif reward trains
    Reward,
    /// A simple rule, such as the shorter one
    Rule,
    /// A program of yours
    Command,
    /// You: in the terminal; in oaif align also on a page
    Human,
    /// Several of these, which are asked together
    Ensemble,
    /// Servers with OpenAI's API: vLLM, SGLang, Ollama, llama.cpp, …
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
            Normalise::Sum => PossibleValue::new("sum").help("log p of the whole response"),
            Normalise::Token => PossibleValue::new("token").help("log p per token"),
            Normalise::Character => PossibleValue::new("character").help("log p per character"),
        })
    }
}

impl ValueEnum for Vote {
    fn value_variants<'a>() -> &'a [Vote] {
        &[Vote::Mean, Vote::Majority]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Vote::Mean => PossibleValue::new("mean").help("The mean of their probabilities"),
            Vote::Majority => PossibleValue::new("majority").help("The share of their votes"),
        })
    }
}

impl ValueEnum for Orders {
    fn value_variants<'a>() -> &'a [Orders] {
        &[Orders::Both, Orders::One]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Orders::Both => PossibleValue::new("both").help("Each pair both ways round, averaged"),
            Orders::One => PossibleValue::new("one").help("Only as it comes"),
        })
    }
}

/// How a program judges, for the end of --help, which breaks the lines.
pub(super) const PROTOCOL: &str = concat!(
    "The program of --judge command is started for each batch of pairs. It reads an object a line on standard input ",
    "until that ends, prints an object a line on standard output, in any order, and ends with exit code 0:\n\n",
    r#"  reads   {"id": "…", "prompt": "…", "response_1": "…", "response_2": "…"}"#,
    "\n",
    r#"  prints  {"id": "…", "verdict": "1"}"#,
    "\n\n",
    r#"The id is the pair's own and is given back as it is. The verdict is "1" or "2" for the better response, "tie" or "#,
    r#""invalid". Optional are "p_first", the probability from 0 to 1 that response 1 is better, and "why", a text."#,
);

// Everything is optional here, so that a flag which the chosen judge does not know is told apart from its
// default.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Judge")]
#[serde(rename_all = "kebab-case")]
pub(crate) struct JudgeArgs {
    /// Who compares the responses
    #[arg(long, value_name = "KIND")]
    judge: Option<Kind>,
    /// Folder of the judging model, a GGUF file, or ORG/NAME[@REVISION] on the hub (llm, likelihood,
    /// reward); the model's name on the server (openai)
    #[arg(long, value_name = "DIR|NAME")]
    judge_model: Option<PathBuf>,
    /// LoRA adapter of a reward model, with its head (reward)
    #[arg(long, value_name = "DIR")]
    judge_adapter: Option<PathBuf>,
    /// Rate responses without the end-of-sequence token after them: as the model was trained (reward)
    #[arg(long)]
    judge_no_append_eos: bool,
    /// llm: summarisation, helpfulness, helpfulness-short, helpfulness-very-short, harmlessness, or a file with
    /// {{ prompt }}, {{ response_1 }} and {{ response_2 }} [default: helpfulness]. likelihood: a file or a text,
    /// put before each response [default: "{{ prompt }}"]
    #[arg(long, value_name = "NAME|FILE|TEXT", allow_hyphen_values = true)]
    judge_template: Option<String>,
    /// What the template's {{ instruction }} says (llm, likelihood)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    judge_instruction: Option<String>,
    /// What likelihood compares [default: sum]
    #[arg(long, value_name = "BY")]
    judge_normalise: Option<Normalise>,
    /// shorter, longer, contains:REGEX, not-contains:REGEX, more:REGEX or starts-with:TEXT (rule)
    #[arg(long, value_name = "RULE")]
    judge_rule: Option<String>,
    /// Command line that reads pairs and prints verdicts as JSON lines (command)
    #[arg(long, value_name = "CMD")]
    judge_command: Option<String>,
    /// Longest time for a batch of pairs (command), for a request (openai) [default: 60]
    #[arg(long, value_name = "SECONDS")]
    judge_timeout: Option<f64>,
    /// Orders in which a pair is shown (llm, openai) [default: both]
    #[arg(long, value_name = "ORDERS")]
    judge_orders: Option<Orders>,
    /// A judge of the ensemble: a .yaml, .toml or .json file that holds its --judge flags under their names, with paths from the
    /// folder that the program is started in; once for each (ensemble)
    #[arg(long, value_name = "FILE")]
    judge_member: Vec<PathBuf>,
    /// How the judges' verdicts become one, whose probability tells how far they are at odds (ensemble) [default: mean]
    #[arg(long, value_name = "HOW")]
    judge_vote: Option<Vote>,
    #[cfg(feature = "http")]
    #[command(flatten)]
    #[serde(flatten)]
    openai: OpenAiArgs,
}

impl JudgeArgs {
    /// What it reads, by its flags.
    pub fn inputs(&self) -> Vec<(&'static str, Option<&Path>)> {
        let template = self.judge_template.as_deref().map(Path::new);
        let own = [
            ("--judge-model", self.judge_model.as_deref()),
            ("--judge-adapter", self.judge_adapter.as_deref()),
            ("--judge-template", template),
        ];
        let members = self.judge_member.iter().map(|file| ("--judge-member", Some(file.as_path())));
        own.into_iter().chain(members).collect()
    }

    pub fn plan(&mut self) -> Result<JudgeConfig> {
        let Some(kind) = self.judge else {
            let why = "nobody is named to compare the responses: give --judge llm, --judge likelihood or --judge reward (with \
                       --judge-model DIR), --judge openai (with --judge-url URL), --judge rule (with \
                       --judge-rule RULE), --judge command (with --judge-command CMD), --judge human, or several by --judge \
                       ensemble (with --judge-member FILE)";
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
        let members = self.judge_member.iter().map(|file| member(file)).collect::<Result<Vec<_>>>()?;
        if members.iter().filter(|member| member.desk().is_some()).count() > 1 {
            let why = "names --judge human twice: there is one terminal, and one page";
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

    /// What a judge that answers "1" or "2" reads.
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
                let why = format!("{given:?} is neither a file nor a text with {{{{ prompt }}}}");
                return Err(Error::config("--judge-template", why));
            }
        };
        let instruction = self.judge_instruction.clone().unwrap_or_default();
        let normalise = *self.judge_normalise.get_or_insert_default();
        Ok(JudgeConfig::Likelihood { model, template, instruction, normalise })
    }

    fn model(&self, who: &str) -> Result<PathBuf> {
        model_dir("--judge-model", needed(&self.judge_model, who, "--judge-model DIR")?)
    }

    fn refuse_flags_of_others(&self, kind: Kind) -> Result<()> {
        use Kind::*;
        #[cfg(feature = "http")]
        if let Some(flag) = first_given(&self.openai, &[]).filter(|_| kind != OpenAi) {
            let wanted = format!("of use to --judge {}: it belongs to --judge openai", kind.name());
            ensure(false, &flag, "this flag", &wanted)?;
        }
        // Without it no flag is a server's.
        #[cfg(not(feature = "http"))]
        const SERVERS: Kind = Llm;
        #[cfg(feature = "http")]
        const SERVERS: Kind = OpenAi;
        let flags: [(&str, bool, &[Kind]); 12] = [
            ("--judge-model", self.judge_model.is_some(), &[Llm, Likelihood, Reward, SERVERS]),
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
        for (flag, given, owners) in flags {
            let mut names: Vec<String> = owners.iter().map(|kind| kind.name()).collect();
            names.dedup();
            let owned = names.join(" or ");
            let wanted = format!("of use to --judge {}: it belongs to --judge {owned}", kind.name());
            ensure(!given || owners.contains(&kind), flag, "this flag", &wanted)?;
        }
        Ok(())
    }
}

/// The names of the flags that say who judges, and how.
pub(crate) fn flags_of_judges() -> Vec<String> {
    flag_names::<JudgeArgs>()
}

impl JudgeArgs {
    /// What is in a file of a judge's flags, which `flag` names.
    pub fn of_file(flag: &str, file: &Path) -> Result<JudgeArgs> {
        let command = JudgeArgs::augment_args(clap::Command::new("judge"));
        let flags =
            config_file::flags_in(&command, file).map_err(|error| Error::config(flag, error.to_string()))?;
        let given = command.try_get_matches_from(std::iter::once("judge".into()).chain(flags));
        let parsed = given.and_then(|given| JudgeArgs::from_arg_matches(&given));
        parsed.map_err(|error| {
            // Without the rest of what clap has to say.
            let text = error.to_string();
            let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Error::config(format!("{flag} {}", file.display()), why)
        })
    }
}

/// A judge of an ensemble, from a file of its flags.
fn member(file: &Path) -> Result<JudgeConfig> {
    let flag = "--judge-member";
    let refuse = |why: String| Error::config(format!("{flag} {}", file.display()), why);
    let mut args = JudgeArgs::of_file(flag, file)?;
    if args.judge == Some(Kind::Ensemble) {
        return Err(refuse("is an ensemble itself: name its judges beside the others".into()));
    }
    args.plan().map_err(|error| refuse(error.to_string()))
}

/// A time in seconds above 0.
pub(super) fn seconds_of(flag: &str, seconds: f64) -> Result<Duration> {
    let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero());
    time.ok_or_else(|| Error::config(flag, format!("{seconds} is no time in seconds above 0")))
}

fn needed<'a, T>(value: &'a Option<T>, who: &str, flag: &str) -> Result<&'a T> {
    value.as_ref().ok_or_else(|| Error::config(who, format!("needs {flag}")))
}
