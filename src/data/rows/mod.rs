//! Dataset rows: JSON lines, a JSON array (alone, or as a list in an object), gzip or not, and Parquet, told apart by
//! content; CSV and TSV, by name.
//!
//! A field is a string or a conversation, a list of `{"role", "content"}` (or `{"from", "value"}`). A column that is
//! `null` is absent. Every unusable row is an [`Error::Row`] with its line; in an array and in Parquet the "line" is the
//! row's number, and the message says so. Rows are read one by one: files may be larger than memory.

mod array;
mod column;
mod csv;
mod implicit;
mod input;
mod json;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(not(feature = "parquet"))]
#[path = "no_parquet.rs"]
mod parquet;
mod reader;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use derive_setters::Setters;
use serde::Serialize;
use serde_json::{Map, Value};

use self::column::{Row, Why, check_kind};
use self::implicit::pair_with_implicit_prompt;
pub use self::reader::Rows;
use crate::error::{Error, Result};

/// Where a row comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file; `None` for a row that a program made.
    pub file: Option<Arc<Path>>,
    /// The line (in an array: the element), from 1.
    pub line: usize,
}

impl Place {
    /// An [`Error::Row`] about the row here.
    pub fn error(&self, why: impl Into<String>) -> Error {
        let path = self.file.as_deref().map_or_else(|| PathBuf::from("row"), Path::to_owned);
        Error::Row { path, line: self.line, why: why.into() }
    }
}

/// Row `line` of those that a program made.
impl From<usize> for Place {
    fn from(line: usize) -> Place {
        Place { file: None, line }
    }
}

/// One turn of a conversation: `"role"`, `"content"`, and whatever else its template may want (`"name"`,
/// `"tool_calls"`, …).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Message(Map<String, Value>);

impl Message {
    /// What `role` ("system", "user", "assistant", …) says.
    pub fn new(role: &str, content: &str) -> Message {
        Message(Map::from_iter([
            ("role".to_owned(), Value::from(role)),
            ("content".to_owned(), Value::from(content)),
        ]))
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        self.0["role"].as_str().unwrap_or_default()
    }

    /// What is said: a string, the texts of a list of parts, or else the JSON of an object, such as a tool's answer.
    pub fn text(&self) -> String {
        let text = |part: &Value| part.as_str().or(part["text"].as_str()).map(str::to_owned);
        match self.0.get("content") {
            None | Some(Value::Null) => String::new(),
            Some(Value::Array(parts)) => parts.iter().filter_map(text).collect(),
            Some(content) => text(content).unwrap_or_else(|| content.to_string()),
        }
    }

    /// All that is written of it.
    pub(super) fn keys(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Whether nothing is said and no tool is called.
    fn is_empty(&self) -> bool {
        self.text().is_empty() && self.0.get("tool_calls").is_none_or(Value::is_null)
    }
}

/// Messages, and what their row gives the chat template besides.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Conversation {
    /// In the order in which they are said.
    pub messages: Vec<Message>,
    /// Variables of the template: the row's `tools` and what stands in its `chat_template_kwargs`.
    #[serde(skip)]
    pub variables: Arc<Map<String, Value>>,
}

/// A field of a row: a string as it is, or a conversation that wants a chat template.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Text {
    /// Read by the model as it is.
    Plain(String),
    /// Rendered by the model's chat template first.
    Chat(Conversation),
}

impl Text {
    /// What somebody who compares answers reads: a string as it is, a conversation as a line for each turn.
    pub fn transcript(&self) -> String {
        match self {
            Text::Plain(text) => text.clone(),
            Text::Chat(conversation) => {
                let line = |m: &Message| format!("{}: {}", m.role(), m.text());
                conversation.messages.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// Whether there is nothing in it: no character, or no message with one.
    pub fn is_empty(&self) -> bool {
        match self {
            Text::Plain(text) => text.is_empty(),
            Text::Chat(conversation) => conversation.messages.iter().all(Message::is_empty),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Text::Plain(_) => "a string",
            Text::Chat(_) => "a conversation",
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text::Plain(text.to_owned())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text::Plain(text)
    }
}

impl From<Vec<Message>> for Text {
    fn from(messages: Vec<Message>) -> Text {
        Text::Chat(Conversation { messages, ..Conversation::default() })
    }
}

/// A prompt, to be answered by a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// What the model continues.
    pub prompt: Text,
    /// Somebody's answer to it, where the dataset has one.
    pub reference: Option<String>,
    /// The row.
    pub place: Place,
}

/// Of a program's own.
impl<T: Into<Text>> From<T> for Prompt {
    fn from(prompt: T) -> Prompt {
        Prompt { prompt: prompt.into(), reference: None, place: Place::default() }
    }
}

/// A preference: `chosen` is the better answer to `prompt`. All three are of one kind, string or conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// What was answered.
    pub prompt: Text,
    /// The better answer, without the prompt; it may be empty.
    pub chosen: Text,
    /// The worse answer, without the prompt; it may be empty.
    pub rejected: Text,
    /// By how much the better one is better, where the row has a number `"margin"`: a reward model's scores are to differ by
    /// as much.
    pub margin: Option<f32>,
    /// The row.
    pub place: Place,
}

impl Pair {
    /// Of a program's own.
    pub fn new(prompt: impl Into<Text>, chosen: impl Into<Text>, rejected: impl Into<Text>) -> Pair {
        let (prompt, chosen, rejected) = (prompt.into(), chosen.into(), rejected.into());
        Pair { prompt, chosen, rejected, margin: None, place: Place::default() }
    }
}

/// Text to learn or to score.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// What comes before, not learnt itself. `None` for a `{"text"}` row, which is learnt as a whole.
    pub prompt: Option<Text>,
    /// The text itself, which may be empty; of the prompt's kind where there is one.
    pub completion: Text,
    /// Whether somebody found it good, where the row says so.
    pub label: Option<bool>,
    /// Its token ids, where the row has them as `oaif generate` writes them (`"token_ids"` beside `"prompt"`).
    pub token_ids: Option<Vec<u32>>,
    /// The row.
    pub place: Place,
}

impl Completion {
    /// Of a program's own.
    pub fn new(prompt: impl Into<Text>, completion: impl Into<Text>) -> Completion {
        let (prompt, completion) = (Some(prompt.into()), completion.into());
        Completion { prompt, completion, label: None, token_ids: None, place: Place::default() }
    }
}

/// Two answers to one prompt, to be judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Responses {
    /// What was answered.
    pub prompt: Text,
    /// The two answers; one may be empty.
    pub responses: [Text; 2],
    /// The row.
    pub place: Place,
}

/// A prompt and somebody's answer to it, to be compared with another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What was answered.
    pub prompt: Text,
    /// The answer, which may be empty.
    pub answer: String,
}

/// What a dataset calls its columns.
#[derive(Clone, Debug, PartialEq, Eq, Setters)]
#[non_exhaustive]
pub struct Columns {
    /// The prompt.
    #[setters(into)]
    pub prompt: String,
    /// An answer that comes with the prompt.
    #[setters(into)]
    pub reference: String,
    /// The better answer.
    #[setters(into)]
    pub chosen: String,
    /// The worse answer.
    #[setters(into)]
    pub rejected: String,
    /// The only answer.
    #[setters(into)]
    pub completion: String,
    /// A text without a prompt.
    #[setters(into)]
    pub text: String,
    /// A conversation without a prompt.
    #[setters(into)]
    pub messages: String,
}

impl Default for Columns {
    fn default() -> Self {
        Columns {
            prompt: "prompt".into(),
            reference: "reference".into(),
            chosen: "chosen".into(),
            rejected: "rejected".into(),
            completion: "completion".into(),
            text: "text".into(),
            messages: "messages".into(),
        }
    }
}

/// Reads `{"prompt"}` rows, with a `reference` where there is one. Of preference rows only the prompts are used,
/// be they explicit or the common beginning of both answers (see [`pairs`]).
pub fn prompts(files: &[PathBuf], columns: &Columns) -> Rows<Prompt> {
    Rows::new(files, columns, |row, columns, place| {
        let prompt = match pair_with_implicit_prompt(row, columns)? {
            Some([prompt, ..]) => prompt,
            None => row.text(&columns.prompt)?,
        };
        let reference = row.string(&columns.reference)?;
        Ok(Prompt { prompt, reference, place })
    })
}

/// Reads `{"prompt", "chosen", "rejected"}` rows. Where the prompt is implicit (no prompt column, or a string
/// beside whole conversations), it is what both answers begin with: the messages that they share, or the shared
/// text up to its last "\n\nAssistant:" or, without that marker, up to its last white space.
pub fn pairs(files: &[PathBuf], columns: &Columns) -> Rows<Pair> {
    Rows::new(files, columns, |row, columns, place| {
        let [prompt, chosen, rejected] = match pair_with_implicit_prompt(row, columns)? {
            Some(texts) => texts,
            None if row.has(&columns.completion) && row.has(LABEL) && !row.has(&columns.chosen) => {
                return Err(format!(
                    "is a single answer with a \"{LABEL}\" (an unpaired preference), of which no pair can be made: give rows \
                     with \"{}\" and \"{}\", or learn the good answers by sft",
                    columns.chosen, columns.rejected
                ));
            }
            None => [row.text(&columns.prompt)?, row.text(&columns.chosen)?, row.text(&columns.rejected)?],
        };
        check_kind(&columns.chosen, &chosen, &prompt)?;
        check_kind(&columns.rejected, &rejected, &prompt)?;
        let margin = match row.get("margin")? {
            None | Some(Value::Null) => None,
            Some(value) => {
                let margin = value.as_f64().map(|margin| margin as f32).filter(|margin| margin.is_finite());
                Some(margin.ok_or_else(|| format!("\"margin\" is {value}, expected a number"))?)
            }
        };
        Ok(Pair { prompt, chosen, rejected, margin, place })
    })
}

/// The column of an unpaired preference: whether its completion is a good one.
const LABEL: &str = "label";

/// Reads `{"prompt", "completion"}` rows, with a `label` where they are unpaired preferences; where there is no completion,
/// `{"messages"}` (or `{"conversations"}`) rows, or else `{"text"}` rows. With a prompt and `"token_ids"`, the text without a
/// completion column is `"text"`: such rows `oaif generate` writes.
pub fn completions(files: &[PathBuf], columns: &Columns) -> Rows<Completion> {
    Rows::new(files, columns, |row, columns, place| {
        let answer = if row.has(&columns.completion) { &columns.completion } else { &columns.text };
        let is_string = row.get(answer)?.is_none_or(Value::is_string);
        if row.has(&columns.prompt) && row.has("token_ids") && is_string {
            let (prompt, completion, token_ids) = generated(row, &columns.prompt, answer)?;
            let prompt = Some(prompt);
            return Ok(Completion { prompt, completion, label: None, token_ids: Some(token_ids), place });
        }
        let (completion, messages, conversations) =
            (row.has(&columns.completion), row.has(&columns.messages), row.has("conversations"));
        let (prompt, column) = if completion {
            (Some(row.text(&columns.prompt)?), columns.completion.as_str())
        } else if messages {
            // Beside which the prompt is only their beginning.
            (None, columns.messages.as_str())
        } else if conversations && !row.has(&columns.text) {
            (None, "conversations")
        } else if (row.has(&columns.prompt) && columns.prompt != columns.text) || row.has(&columns.chosen) {
            if row.has(&columns.chosen) && row.has(&columns.rejected) {
                return Err(format!(
                    "is a pair (\"{}\", \"{}\"), not a text to learn: train on it by dpo, or say which column is the \
                     completion",
                    columns.chosen, columns.rejected
                ));
            }
            (Some(row.text(&columns.prompt)?), columns.completion.as_str())
        } else {
            (None, columns.text.as_str())
        };
        let completion = row.text(column)?;
        if let Some(prompt) = &prompt {
            check_kind(column, &completion, prompt)?;
        }
        let label = prompt.as_ref().and_then(|_| row.get(LABEL).ok().flatten()?.as_bool());
        Ok(Completion { prompt, completion, label, token_ids: None, place })
    })
}

/// A prompt, the text that was generated after it, which may be empty, and the ids that were drawn.
fn generated(row: &Row, prompt: &str, answer: &str) -> Result<(Text, Text, Vec<u32>), Why> {
    let prompt = row.text(prompt)?;
    let text =
        row.string(answer)?.ok_or_else(|| format!("column \"token_ids\" has no \"{answer}\" beside it"))?;
    let completion = match &prompt {
        Text::Plain(_) => Text::Plain(text),
        // The answer to a conversation is a string, too.
        Text::Chat(_) => {
            let messages = vec![Message::new("assistant", &text)];
            Text::Chat(Conversation { messages, ..Conversation::default() })
        }
    };
    let ids = row.get("token_ids")?.cloned().unwrap_or_default();
    let ids = serde_json::from_value(ids);
    let ids = ids.map_err(|_| "column \"token_ids\" must be a list of token ids".to_owned())?;
    Ok((prompt, completion, ids))
}

/// Reads `{"prompt", "response_1", "response_2"}` rows.
pub fn responses(files: &[PathBuf], columns: &Columns) -> Rows<Responses> {
    Rows::new(files, columns, |row, columns, place| {
        let prompt = row.text(&columns.prompt)?;
        let responses = [row.text("response_1")?, row.text("response_2")?];
        for (column, response) in ["response_1", "response_2"].into_iter().zip(&responses) {
            check_kind(column, response, &prompt)?;
        }
        Ok(Responses { prompt, responses, place })
    })
}

/// What programs that write answers call the column.
const ANSWER_COLUMNS: [&str; 6] = ["text", "answer", "response", "completion", "output", "reference"];

/// Reads prompts with one answer each: `{"prompt", "text"}` as `oaif generate` writes it, or with "answer", "response",
/// "completion", "output" or "reference" for "text", and "instruction" for the prompt.
pub fn answers(files: &[PathBuf]) -> Rows<Answered> {
    Rows::new(files, &Columns::default(), |row, columns, _| {
        let prompt = match row.has(&columns.prompt) || !row.has("instruction") {
            true => row.text(&columns.prompt)?,
            false => row.text("instruction")?,
        };
        let found = ANSWER_COLUMNS.into_iter().find(|column| row.has(column));
        let column = found.ok_or_else(|| {
            format!("holds no answer: give it as one of the columns {}", ANSWER_COLUMNS.join(", "))
        })?;
        let answer = row.text(column)?;
        let answer = match answer {
            Text::Plain(text) => text,
            Text::Chat(conversation) => conversation.messages.iter().map(Message::text).collect(),
        };
        Ok(Answered { prompt, answer })
    })
}

/// All rows of [`answers`] of one file.
pub fn read_answers(path: &Path) -> Result<Vec<Answered>> {
    answers(&[path.to_owned()]).collect()
}

/// All rows of [`prompts`] of one file.
pub fn read_prompts(path: &Path, columns: &Columns) -> Result<Vec<Prompt>> {
    prompts(&[path.to_owned()], columns).collect()
}

/// All rows of [`pairs`] of one file.
pub fn read_pairs(path: &Path, columns: &Columns) -> Result<Vec<Pair>> {
    pairs(&[path.to_owned()], columns).collect()
}

/// All rows of [`completions`] of one file.
pub fn read_completions(path: &Path, columns: &Columns) -> Result<Vec<Completion>> {
    completions(&[path.to_owned()], columns).collect()
}

/// All rows of [`responses`] of one file.
pub fn read_responses(path: &Path, columns: &Columns) -> Result<Vec<Responses>> {
    responses(&[path.to_owned()], columns).collect()
}
