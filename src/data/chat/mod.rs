//! Chat templates: Jinja, set up as `transformers` sets it up.

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

/// The templates that are used, by name.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// A model's chat templates: usually one, sometimes another for conversations with tools.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    names: Vec<&'static str>,
    special_tokens: Map<String, Json>,
}

impl ChatTemplate {
    /// The templates of the model in `dir`: `chat_template.jinja` and `additional_chat_templates/tool_use.jinja`, or
    /// else `chat_template` in `tokenizer_config.json` or `chat_template.json` (a string, or one a name). `None` where
    /// there is none.
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

    /// The conversation as the model reads it; with `add_generation_prompt`, up to where its answer begins.
    /// What the template refuses is [`Error::Config`].
    pub fn render(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<String> {
        let given = |name: &str| conversation.variables.get(name).filter(|value| !value.is_null());
        let wanted =
            if given("tools").is_some() && self.names.contains(&TOOL_USE) { TOOL_USE } else { DEFAULT };
        if !self.names.contains(&wanted) {
            let why = "the model has none named \"default\": put a chat_template.jinja into its folder";
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

/// Names that a message's reasoning is written under. Templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message as `transformers` gives it to a template: without what is null, and its reasoning under every name that
/// templates look for.
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

/// What the model reads for `prompt`: a string as it is, a conversation up to where the answer begins.
pub fn render_prompt(prompt: &Text, template: Option<&ChatTemplate>) -> Result<String> {
    match prompt {
        Text::Plain(text) => Ok(text.clone()),
        Text::Chat(conversation) => required(template)?.render(conversation, true),
    }
}

/// What the model reads for `prompt` and `answer` together; both are of one kind. It begins with [`render_prompt`] of
/// the prompt, unless a template renders a prompt differently once its answer follows.
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
            "answer",
            "is a string or a conversation, and its prompt is not: make both the same",
        )),
    }
}

fn required(template: Option<&ChatTemplate>) -> Result<&ChatTemplate> {
    template.ok_or_else(|| {
        let why = "the dataset has conversations but the model has no chat template: give the rows as strings, or \
                   put a chat_template.jinja into the model's folder";
        Error::config("chat template", why)
    })
}
