//! Chat templates: Jinja, configured as in `transformers`.

pub(crate) mod bounds;
mod environment;
mod folder;
pub(crate) use folder::templates;
mod json;
mod methods;
mod python;
mod source;
pub(crate) mod strftime;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json};

use super::rows::{Conversation, Message, Text};
use super::tokenizer;
use crate::error::{Error, Result};
use crate::gguf;

/// The names of the templates that are used.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The chat templates of a model: usually one, sometimes a second one for conversations with tools.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    names: Vec<&'static str>,
    special_tokens: Map<String, Json>,
}

impl ChatTemplate {
    /// Loads the templates of the model in `dir`: `chat_template.jinja` and `additional_chat_templates/tool_use.jinja`,
    /// or else `chat_template` in `tokenizer_config.json` or `chat_template.json` (a string, or several by name).
    /// Returns `None` if there are none.
    pub fn load(dir: &Path) -> Result<Option<ChatTemplate>> {
        let config = gguf::json(dir, "tokenizer_config.json")?.1.unwrap_or_default();
        let templates = folder::templates(dir, &config)?;
        if templates.is_empty() {
            return Ok(None);
        }
        let special_tokens = tokenizer::special_tokens(dir)?;
        let (mut environment, mut names) = (environment::environment(), Vec::new());
        for name in [DEFAULT, TOOL_USE] {
            if let Some((path, source)) = templates.get(name) {
                let unparsed = |e| Error::file(path, format!("the chat template does not parse ({e})"));
                environment = bounds::add_template(environment, name, source).map_err(unparsed)?;
                names.push(name);
            }
        }
        Ok(Some(ChatTemplate { environment: Arc::new(environment), names, special_tokens }))
    }

    /// Renders a conversation as the model reads it; with `add_generation_prompt`, up to the beginning of the response.
    /// An exception of the template is [`Error::Config`].
    pub fn render(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<String> {
        let given = |name: &str| conversation.variables.get(name).filter(|value| !value.is_null());
        let wanted =
            if given("tools").is_some() && self.names.contains(&TOOL_USE) { TOOL_USE } else { DEFAULT };
        if !self.names.contains(&wanted) {
            let why = "the model has none named \"default\": add a chat_template.jinja to its folder";
            return Err(Error::config("chat template", why));
        }
        let mut variables = self.special_tokens.clone();
        variables.extend([("tools".to_owned(), Json::Null), ("documents".to_owned(), Json::Null)]);
        variables.extend(conversation.variables.iter().map(|(name, value)| (name.clone(), value.clone())));
        let messages = conversation.messages.iter().map(as_read).collect();
        variables.insert("messages".to_owned(), Json::Array(messages));
        variables.insert("add_generation_prompt".to_owned(), Json::Bool(add_generation_prompt));
        bounds::render(&self.environment, wanted, Value::from(Serde(variables)))
            .map_err(|e| Error::config("chat template", format!("cannot render this conversation ({e})")))
    }
}

/// The keys that hold a message's reasoning. Templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Converts a message as `transformers` passes it to a template: without null values, and with its reasoning under
/// every key that templates read.
fn as_read(message: &Message) -> Json {
    let keys = message.keys();
    let mut read = Map::new();
    let reasoning = REASONING.into_iter().find_map(|name| keys.get(name).filter(|value| !value.is_null()));
    if let Some(reasoning) = reasoning {
        read.insert("thinking".to_owned(), reasoning.clone());
    }
    read.extend(keys.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())));
    if let Some(reasoning) = reasoning {
        read.insert(REASONING[0].to_owned(), reasoning.clone());
    }
    Json::Object(read)
}

/// The text that the model reads for `prompt`: a string unchanged, a conversation up to the beginning of the response.
pub fn render_prompt(prompt: &Text, template: Option<&ChatTemplate>) -> Result<String> {
    match prompt {
        Text::Plain(text) => Ok(text.clone()),
        Text::Chat(conversation) => required(template)?.render(conversation, true),
    }
}

/// The text that the model reads for `prompt` and `answer`, which are both strings or both conversations. It begins
/// with [`render_prompt`] of the prompt, unless a template renders a prompt differently when its response follows.
pub fn render_whole(prompt: Option<&Text>, answer: &Text, template: Option<&ChatTemplate>) -> Result<String> {
    match (prompt, answer) {
        (None, Text::Plain(text)) => Ok(text.clone()),
        (Some(Text::Plain(prompt)), Text::Plain(answer)) => Ok(format!("{prompt}{answer}")),
        (None, Text::Chat(conversation)) => required(template)?.render(conversation, false),
        (Some(Text::Chat(prompt)), Text::Chat(answer)) => {
            let messages = [&prompt.messages[..], &answer.messages].concat();
            let whole = Conversation { messages, variables: prompt.variables.clone() };
            required(template)?.render(&whole, false)
        }
        (Some(_), _) => Err(Error::config(
            "response",
            "must be a string or a conversation like its prompt: make both the same",
        )),
    }
}

fn required(template: Option<&ChatTemplate>) -> Result<&ChatTemplate> {
    template.ok_or_else(|| {
        let why = "the dataset has conversations, but the model has no chat template: use rows of strings, or \
                   add a chat_template.jinja to the model's folder";
        Error::config("chat template", why)
    })
}
