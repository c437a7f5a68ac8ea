//! Dataset rows. JSON lines, a JSON array (at the top level, or as a list in an object), their gzip, and Parquet are
//! detected by content; CSV and TSV by name.
//!
//! A field is a string or a conversation, which is a list of `{"role", "content"}` (or `{"from", "value"}`). A column
//! that is `null` is absent. Every invalid row is an [`Error::Row`] with its line. In arrays and Parquet the "line" is
//! the number of the row, and the message says so. Rows are read one by one, so files may be larger than memory.

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

/// The origin of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file; `None` for a row that was created by code.
    pub file: Option<Arc<Path>>,
    /// The line, counted from 1 (in an array: the element).
    pub line: usize,
}

impl Place {
    /// Creates an [`Error::Row`] about this row.
    pub fn error(&self, why: impl Into<String>) -> Error {
        let path = self.file.as_deref().map_or_else(|| PathBuf::from("row"), Path::to_owned);
        Error::Row { path, line: self.line, why: why.into() }
    }
}

/// Row `line` of rows that were created by code.
impl From<usize> for Place {
    fn from(line: usize) -> Place {
        Place { file: None, line }
    }
}

/// One turn of a conversation: `"role"`, `"content"`, and any other keys that the chat template may use (`"name"`,
/// `"tool_calls"`, …).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Message(Map<String, Value>);

impl Message {
    /// Creates a message of `role` ("system", "user", "assistant", …).
    pub fn new(role: &str, content: &str) -> Message {
        Message(Map::from_iter([
            ("role".to_owned(), Value::from(role)),
            ("content".to_owned(), Value::from(content)),
        ]))
    }

    /// The role.
    pub fn role(&self) -> &str {
        self.0["role"].as_str().unwrap_or_default()
    }

    /// The content as text: a string, the joined texts of a list of parts, or else the JSON of an object, such as a
    /// tool's result.
    pub fn text(&self) -> String {
        let text = |part: &Value| part.as_str().or(part["text"].as_str()).map(str::to_owned);
        match self.0.get("content") {
            None | Some(Value::Null) => String::new(),
            Some(Value::Array(parts)) => parts.iter().filter_map(text).collect(),
            Some(content) => text(content).unwrap_or_else(|| content.to_string()),
        }
    }

    /// All keys of the message.
    pub(super) fn keys(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Whether it has neither text nor tool calls.
    fn is_empty(&self) -> bool {
        self.text().is_empty() && self.0.get("tool_calls").is_none_or(Value::is_null)
    }
}

/// Messages, and their row's variables for the chat template.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Conversation {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Variables of the template: the row's `tools` and the content of its `chat_template_kwargs`.
    #[serde(skip)]
    pub variables: Arc<Map<String, Value>>,
}

/// A field of a row: a plain string, or a conversation that needs a chat template.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Text {
    /// Encoded without a template.
    Plain(String),
    /// Rendered by the model's chat template first.
    Chat(Conversation),
}

impl Text {
    /// The text for a judge: a string as it is, a conversation with one line per turn.
    pub fn transcript(&self) -> String {
        match self {
            Text::Plain(text) => text.clone(),
            Text::Chat(conversation) => {
                let line = |m: &Message| format!("{}: {}", m.role(), m.text());
                conversation.messages.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// Whether it is empty: no characters, or only messages without text and tool calls.
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

/// A prompt for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The text that the model responds to.
    pub prompt: Text,
    /// A reference response, if the dataset has one.
    pub reference: Option<String>,
    /// The origin of the row.
    pub place: Place,
}

/// A prompt that was created by code.
impl<T: Into<Text>> From<T> for Prompt {
    fn from(prompt: T) -> Prompt {
        Prompt { prompt: prompt.into(), reference: None, place: Place::default() }
    }
}

/// A preference pair: `chosen` is the better response to `prompt`. All three are strings, or all three are
/// conversations.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The prompt of both responses.
    pub prompt: Text,
    /// The better response, without the prompt; it may be empty.
    pub chosen: Text,
    /// The worse response, without the prompt; it may be empty.
    pub rejected: Text,
    /// The margin by which a reward model's scores should differ, if the row has a number `"margin"`.
    pub margin: Option<f32>,
    /// The origin of the row.
    pub place: Place,
}

impl Pair {
    /// Creates a pair in code.
    pub fn new(prompt: impl Into<Text>, chosen: impl Into<Text>, rejected: impl Into<Text>) -> Pair {
        let (prompt, chosen, rejected) = (prompt.into(), chosen.into(), rejected.into());
        Pair { prompt, chosen, rejected, margin: None, place: Place::default() }
    }
}

/// A text to train on or to score.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The prompt, which is not trained on. `None` for a `{"text"}` row, which is trained on whole.
    pub prompt: Option<Text>,
    /// The text itself, which may be empty. It is a string or a conversation like the prompt.
    pub completion: Text,
    /// Whether it is a good completion, if the row says so.
    pub label: Option<bool>,
    /// Its token ids, if the row has them as `oaif generate` writes them (`"token_ids"` next to `"prompt"`).
    pub token_ids: Option<Vec<u32>>,
    /// The origin of the row.
    pub place: Place,
}

impl Completion {
    /// Creates a completion in code.
    pub fn new(prompt: impl Into<Text>, completion: impl Into<Text>) -> Completion {
        let (prompt, completion) = (Some(prompt.into()), completion.into());
        Completion { prompt, completion, label: None, token_ids: None, place: Place::default() }
    }
}

/// Two responses to one prompt, for a judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Responses {
    /// The prompt of both responses.
    pub prompt: Text,
    /// The two responses; they may be empty.
    pub responses: [Text; 2],
    /// The origin of the row.
    pub place: Place,
}

/// A prompt with a given response, which is compared with another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The prompt.
    pub prompt: Text,
    /// The response, which may be empty.
    pub answer: String,
}

/// The names of a dataset's columns.
#[derive(Clone, Debug, PartialEq, Eq, Setters)]
#[non_exhaustive]
pub struct Columns {
    /// The prompt.
    #[setters(into)]
    pub prompt: String,
    /// A reference response to the prompt.
    #[setters(into)]
    pub reference: String,
    /// The better response.
    #[setters(into)]
    pub chosen: String,
    /// The worse response.
    #[setters(into)]
    pub rejected: String,
    /// The only response.
    #[setters(into)]
    pub completion: String,
    /// A text without a prompt.
    #[setters(into)]
    pub text: String,
    /// A conversation without a prompt.
    #[setters(into)]
    pub messages: String,
}

/// The last part of the error about a missing column, before the option that sets the column's name.
pub(crate) const OR_NAMED_BY: &str = ", or give its name with ";

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

/// Reads `{"prompt"}` rows, with a `reference` if they have one. Of preference rows only the prompts are used, whether
/// explicit or implicit (see [`pairs`]).
pub fn prompts(files: &[PathBuf], columns: &Columns) -> Rows<Prompt> {
    Rows::new(files, columns, |row, columns, place| {
        let prompt = match pair_with_implicit_prompt(row, columns)? {
            Some([prompt, ..]) => prompt,
            None => row.text_named_by("prompt-column", &columns.prompt)?,
        };
        let reference = row.string(&columns.reference)?;
        Ok(Prompt { prompt, reference, place })
    })
}

/// Reads `{"prompt", "chosen", "rejected"}` rows. If the prompt is implicit (no prompt column, or a string next to
/// whole conversations), it is the common beginning of both responses: the messages that they share, or the shared text
/// up to its last "\n\nAssistant:" or, without that marker, up to its last white space.
pub fn pairs(files: &[PathBuf], columns: &Columns) -> Rows<Pair> {
    Rows::new(files, columns, |row, columns, place| {
        let [prompt, chosen, rejected] = match pair_with_implicit_prompt(row, columns)? {
            Some(texts) => texts,
            None if row.has(&columns.completion) && row.has(LABEL) && !row.has(&columns.chosen) => {
                return Err(format!(
                    "is a single completion with a \"{LABEL}\" (an unpaired preference), which is not a pair: use rows \
                     with \"{}\" and \"{}\", or train on the good completions with sft",
                    columns.chosen, columns.rejected
                ));
            }
            None => [
                row.text_named_by("prompt-column", &columns.prompt)?,
                row.text_named_by("chosen-column", &columns.chosen)?,
                row.text_named_by("rejected-column", &columns.rejected)?,
            ],
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

/// The column of an unpaired preference that says whether its completion is good.
const LABEL: &str = "label";

/// Reads `{"prompt", "completion"}` rows, with a `label` if they are unpaired preferences. Rows without a completion
/// are read as `{"messages"}` (or `{"conversations"}`), or else as `{"text"}`. Rows of `oaif generate`, which have a
/// prompt and `"token_ids"`, have the text in `"text"` if there is no completion column.
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
            (Some(row.text_named_by("prompt-column", &columns.prompt)?), columns.completion.as_str())
        } else if messages {
            // The prompt of such a row is only the beginning of its messages.
            (None, columns.messages.as_str())
        } else if conversations && !row.has(&columns.text) {
            (None, "conversations")
        } else if (row.has(&columns.prompt) && columns.prompt != columns.text) || row.has(&columns.chosen) {
            if row.has(&columns.chosen) && row.has(&columns.rejected) {
                return Err(format!(
                    "is a pair (\"{}\", \"{}\"), not a completion: train on it with dpo, or set the option for the name of the \
                     completion column",
                    columns.chosen, columns.rejected
                ));
            }
            (Some(row.text_named_by("prompt-column", &columns.prompt)?), columns.completion.as_str())
        } else {
            (None, columns.text.as_str())
        };
        let option = if prompt.is_some() { "completion-column" } else { "text-column" };
        let completion = row.text_named_by(option, column)?;
        if let Some(prompt) = &prompt {
            check_kind(column, &completion, prompt)?;
        }
        let label = prompt.as_ref().and_then(|_| row.get(LABEL).ok().flatten()?.as_bool());
        Ok(Completion { prompt, completion, label, token_ids: None, place })
    })
}

/// Reads a prompt, the text that was generated for it, which may be empty, and its token ids.
fn generated(row: &Row, prompt: &str, answer: &str) -> Result<(Text, Text, Vec<u32>), Why> {
    let prompt = row.text(prompt)?;
    let text =
        row.string(answer)?.ok_or_else(|| format!("column \"token_ids\" requires a column \"{answer}\""))?;
    let completion = match &prompt {
        Text::Plain(_) => Text::Plain(text),
        // The generated response to a conversation is a string, too.
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
        let prompt = row.text_named_by("prompt-column", &columns.prompt)?;
        let responses = [row.text("response_1")?, row.text("response_2")?];
        for (column, response) in ["response_1", "response_2"].into_iter().zip(&responses) {
            check_kind(column, response, &prompt)?;
        }
        Ok(Responses { prompt, responses, place })
    })
}

/// The column names that programs use for responses.
const ANSWER_COLUMNS: [&str; 6] = ["text", "answer", "response", "completion", "output", "reference"];

/// Reads prompts with one response each: `{"prompt", "text"}` as `oaif generate` writes it, or with "answer",
/// "response", "completion", "output" or "reference" in place of "text", and "instruction" in place of "prompt".
pub fn answers(files: &[PathBuf]) -> Rows<Answered> {
    Rows::new(files, &Columns::default(), |row, columns, _| {
        let prompt = match row.has(&columns.prompt) || !row.has("instruction") {
            true => row.text(&columns.prompt)?,
            false => row.text("instruction")?,
        };
        let found = ANSWER_COLUMNS.into_iter().find(|column| row.has(column));
        let column = found.ok_or_else(|| {
            format!("has no response: add it as one of the columns {}", ANSWER_COLUMNS.join(", "))
        })?;
        let answer = row.text(column)?;
        let answer = match answer {
            Text::Plain(text) => text,
            Text::Chat(conversation) => conversation.messages.iter().map(Message::text).collect(),
        };
        Ok(Answered { prompt, answer })
    })
}

/// Reads all rows of [`answers`] from one file.
pub fn read_answers(path: &Path) -> Result<Vec<Answered>> {
    answers(&[path.to_owned()]).collect()
}

/// Reads all rows of [`prompts`] from one file.
pub fn read_prompts(path: &Path, columns: &Columns) -> Result<Vec<Prompt>> {
    prompts(&[path.to_owned()], columns).collect()
}

/// Reads all rows of [`pairs`] from one file.
pub fn read_pairs(path: &Path, columns: &Columns) -> Result<Vec<Pair>> {
    pairs(&[path.to_owned()], columns).collect()
}

/// Reads all rows of [`completions`] from one file.
pub fn read_completions(path: &Path, columns: &Columns) -> Result<Vec<Completion>> {
    completions(&[path.to_owned()], columns).collect()
}

/// Reads all rows of [`responses`] from one file.
pub fn read_responses(path: &Path, columns: &Columns) -> Result<Vec<Responses>> {
    responses(&[path.to_owned()], columns).collect()
}
