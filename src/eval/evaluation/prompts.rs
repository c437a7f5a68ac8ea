//! The prompts of an evaluation.

use std::path::{Path, PathBuf};

use super::EvalOptions;
use crate::data::rows::{Columns, Conversation, Message, Prompt, Text, prompts, read_answers};
use crate::error::{Error, Result};
use crate::eval::files::{
    EvalPrompt, read_alpaca_outputs, read_arena_hard_questions, read_mt_bench_questions,
};
use crate::train::Policy;

/// Where prompts come from.
#[derive(Clone, Debug, PartialEq)]
pub enum PromptSource {
    /// The rows of one or more files, with the names of their columns.
    Rows(Vec<PathBuf>, Columns),
    /// The prompts in a file of responses.
    Responses(PathBuf),
    /// The prompts of an AlpacaEval file of outputs, which are the reference responses.
    AlpacaEval(PathBuf),
    /// The first turns of MT-Bench's questions.
    MtBench(PathBuf),
    /// The prompts of Arena-Hard.
    ArenaHard(PathBuf),
}

impl PromptSource {
    /// The file, or the first of several.
    pub(super) fn path(&self) -> &Path {
        match self {
            PromptSource::Rows(files, _) => files.first().map_or(Path::new(""), PathBuf::as_path),
            PromptSource::Responses(path)
            | PromptSource::AlpacaEval(path)
            | PromptSource::MtBench(path)
            | PromptSource::ArenaHard(path) => path,
        }
    }
}

/// A prompt of the evaluation.
pub(super) struct EvalTask {
    /// The prompt in the file.
    pub prompt: Text,
    /// Whether the prompt is a user message, to which the chat template is applied.
    pub chat: bool,
    /// The reference response in the file.
    pub reference: Option<String>,
}

impl EvalTask {
    /// The prompt for a policy, with the chat template if it applies.
    pub fn read_by(&self, policy: &Policy) -> Text {
        match (&self.prompt, self.chat && policy.template.is_some()) {
            (Text::Plain(text), true) => {
                let messages = vec![Message::new("user", text)];
                Text::Chat(Conversation { messages, ..Conversation::default() })
            }
            (prompt, _) => prompt.clone(),
        }
    }
}

/// Reads the prompts, at most [`EvalOptions::max_prompts`].
pub(super) fn read(options: &EvalOptions, warnings: &mut Vec<String>) -> Result<Vec<EvalTask>> {
    let (limit, chat) = (options.max_prompts, options.chat);
    let mut tasks: Vec<EvalTask> = match &options.prompts {
        PromptSource::Rows(files, columns) => {
            let task = |row: Result<Prompt>| {
                row.map(|Prompt { prompt, reference, .. }| EvalTask { prompt, chat, reference })
            };
            prompts(files, columns).take(limit.saturating_add(1)).map(task).collect::<Result<_>>()?
        }
        PromptSource::Responses(path) => {
            let rows = read_answers(path)?.into_iter();
            rows.map(|row| EvalTask { prompt: row.prompt, chat, reference: None }).collect()
        }
        PromptSource::AlpacaEval(path) => of_benchmark(read_alpaca_outputs(path)?),
        PromptSource::ArenaHard(path) => of_benchmark(read_arena_hard_questions(path)?),
        PromptSource::MtBench(path) => {
            warnings.push("only the first of MT-Bench's two turns is evaluated".into());
            of_benchmark(read_mt_bench_questions(path)?)
        }
    };
    if tasks.len() > limit {
        tasks.truncate(limit);
        warnings.push(format!("only the first {limit} prompts are used: raise max-prompts for more"));
    }
    let before = tasks.len();
    tasks.retain(|task| !task.prompt.is_empty());
    if tasks.is_empty() {
        let why = match before {
            0 => "holds no prompt".to_owned(),
            _ => format!("holds {before} prompts, all of them empty"),
        };
        return Err(Error::file(options.prompts.path(), format!("{why}: give a file with prompts")));
    }
    Ok(tasks)
}

/// The tasks of a benchmark: user messages, with the reference responses of the file.
fn of_benchmark(prompts: Vec<EvalPrompt>) -> Vec<EvalTask> {
    let task = |EvalPrompt { text, reference }| EvalTask { prompt: Text::Plain(text), chat: true, reference };
    prompts.into_iter().map(task).collect()
}
