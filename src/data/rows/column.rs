//! The columns of one row.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Conversation, Message, OR_NAMED_BY, Text};

/// Why a row is unusable. [`super::Rows`] adds the path and the line.
pub(super) type Why = String;

/// One row. Columns that are `null` are absent.
pub(super) struct Row {
    columns: Map<String, Value>,
    /// Columns with a value that is not valid text, such as NaN, and its description. It is an error only if such a
    /// column is used.
    unusable: Vec<(String, &'static str)>,
}

impl Row {
    /// Creates the row of `columns`, of which some are `unusable`.
    pub(super) fn new(mut columns: Map<String, Value>, unusable: Vec<(String, &'static str)>) -> Row {
        columns.retain(|name, value| !value.is_null() && unusable.iter().all(|(other, _)| other != name));
        Row { columns, unusable }
    }

    /// All columns with a value.
    #[cfg(test)]
    pub(super) fn columns(&self) -> &Map<String, Value> {
        &self.columns
    }

    /// Whether `column` has a value.
    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column) || self.unusable.iter().any(|(name, _)| name == column)
    }

    /// The value of `column`.
    pub(super) fn get(&self, column: &str) -> Result<Option<&Value>, Why> {
        match self.unusable.iter().find(|(name, _)| name == column) {
            Some((_, what)) => Err(format!("column \"{column}\" has {what}: correct it or remove the row")),
            None => Ok(self.columns.get(column)),
        }
    }

    /// The string in `column`, if it has a value.
    pub(super) fn string(&self, column: &str) -> Result<Option<String>, Why> {
        match self.get(column)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(wrong_type(column, other, "a string")),
        }
    }

    /// The string or conversation in `column`.
    pub(super) fn text(&self, column: &str) -> Result<Text, Why> {
        const EXPECTED: &str = "a string or a list of {\"role\", \"content\"}";
        match self.get(column)? {
            None => Err(self.absent(column)),
            Some(Value::String(text)) => Ok(Text::Plain(text.clone())),
            Some(Value::Array(list)) if list.is_empty() => {
                Err(format!("column \"{column}\" is an empty list of messages"))
            }
            Some(Value::Array(list)) => {
                let messages =
                    list.iter().map(Message::try_from).collect::<Result<_, _>>().map_err(|why| {
                        format!(
                            "column \"{column}\" is a list of something else ({why}), expected {EXPECTED}"
                        )
                    })?;
                Ok(Text::Chat(Conversation { messages, variables: Arc::new(self.variables()?) }))
            }
            Some(other) => Err(wrong_type(column, other, EXPECTED)),
        }
    }

    /// Like [`Row::text`], for a column whose name is set with `option`.
    pub(super) fn text_named_by(&self, option: &str, column: &str) -> Result<Text, Why> {
        match self.get(column)? {
            None => Err(format!("{}{OR_NAMED_BY}`{option}`", self.absent(column))),
            Some(_) => self.text(column),
        }
    }

    fn absent(&self, column: &str) -> Why {
        let present: BTreeSet<_> = self.columns.keys().map(|name| format!("\"{name}\"")).collect();
        let present = present.into_iter().collect::<Vec<_>>().join(", ");
        let present = if present.is_empty() { "none" } else { &present };
        format!("no column \"{column}\" (the row has {present}): rename a column of the file to \"{column}\"")
    }

    /// The row's variables for the chat template: its tools (a list, or one as JSON text) and `chat_template_kwargs`.
    fn variables(&self) -> Result<Map<String, Value>, Why> {
        const OPTIONS: &str = "chat_template_kwargs";
        const OURS: [&str; 4] =
            ["messages", "add_generation_prompt", "continue_final_message", "chat_template"];
        let mut variables = Map::new();
        if let Some(tools) = self.get("tools")? {
            variables.insert("tools".to_owned(), tools.clone());
        }
        match self.get(OPTIONS)? {
            None => {}
            Some(Value::Object(options)) => {
                if let Some(name) = OURS.iter().find(|name| options.contains_key(**name)) {
                    return Err(format!("column \"{OPTIONS}\" cannot set \"{name}\": leave it out"));
                }
                variables.extend(options.clone());
            }
            Some(other) => return Err(wrong_type(OPTIONS, other, "an object of template variables")),
        }
        if let Some(given) = variables.get_mut("tools") {
            *given = tools(given)?;
        }
        Ok(variables)
    }
}

/// Converts tools to the form that a template expects: a list of objects, or null if there are none.
fn tools(given: &Value) -> Result<Value, Why> {
    const EXPECTED: &str = "a list of JSON schemas, or that list as JSON text";
    let parsed = match given {
        Value::String(text) => {
            serde_json::from_str(text).map_err(|e| format!("column \"tools\" is not valid JSON ({e})"))?
        }
        other => other.clone(),
    };
    match parsed {
        Value::Null => Ok(Value::Null),
        Value::Array(list) if list.is_empty() => Ok(Value::Null),
        Value::Array(list) if list.iter().all(Value::is_object) => Ok(Value::Array(list)),
        other => Err(wrong_type("tools", &other, EXPECTED)),
    }
}

/// Reads a message with `"role"` (or `"from"`), `"content"` (or `"value"`) and any other keys.
impl TryFrom<&Value> for Message {
    type Error = String;

    fn try_from(value: &Value) -> Result<Message, String> {
        let Value::Object(keys) = value else { return Err(format!("a message is {}", kind_of(value))) };
        let rename = |name: &String| match name.as_str() {
            "from" => "role".to_owned(),
            "value" => "content".to_owned(),
            _ => name.clone(),
        };
        let keys: Map<String, Value> =
            keys.iter().map(|(name, value)| (rename(name), value.clone())).collect();
        match keys.get("role") {
            Some(Value::String(_)) => {}
            Some(other) => return Err(format!("a message's \"role\" is {}", kind_of(other))),
            None => return Err("a message has no \"role\"".to_owned()),
        }
        match keys.get("content") {
            None | Some(Value::Null) => {
                let instead = ["tool_calls", "function_call", "reasoning_content", "thinking", "reasoning"];
                if !instead.iter().any(|name| keys.get(*name).is_some_and(|value| !value.is_null())) {
                    return Err("a message has no \"content\" and calls no tool".to_owned());
                }
            }
            Some(Value::String(_) | Value::Object(_)) => {}
            Some(Value::Array(parts)) => {
                if let Some(part) = parts.iter().find(|part| !(part.is_object() || part.is_string())) {
                    return Err(format!("a part of a message's \"content\" is {}", kind_of(part)));
                }
            }
            Some(other) => return Err(format!("a message's \"content\" is {}", kind_of(other))),
        }
        Ok(Message(keys))
    }
}

/// The description of a value's type.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wrong_type(column: &str, found: &Value, expected: &str) -> Why {
    format!("column \"{column}\" is {}, expected {expected}", kind_of(found))
}

/// Checks that a response is a string or a conversation like its prompt.
pub(super) fn check_kind(column: &str, answer: &Text, prompt: &Text) -> Result<(), Why> {
    if answer.kind() == prompt.kind() {
        return Ok(());
    }
    let (answer, prompt) = (answer.kind(), prompt.kind());
    Err(format!("column \"{column}\" is {answer}, but its prompt is {prompt}: make both the same"))
}
