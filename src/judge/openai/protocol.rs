//! Writes requests and reads answers.
//!
//! Log-probabilities come in two forms, and a server may use either form at either endpoint (llama.cpp answers
//! `/completions` in the chat form): `logprobs.content[i].top_logprobs[j].{token, logprob}`, and the older
//! `logprobs.{tokens[i], token_logprobs[i], top_logprobs[i]: {token: logprob}}`.

use serde_json::{Value, json};

use super::options::Api;

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Prompt<'a> {
    pub api: Api,
    pub model: &'a str,
    pub system: Option<&'a str>,
    pub text: &'a str,
    pub max_tokens: u32,
    /// Whether the length limit is called `max_completion_tokens`, as OpenAI's newer models require.
    pub completion_tokens: bool,
    /// `None`: the model's default.
    pub temperature: Option<f64>,
    /// The number of most probable tokens to request.
    pub top: Option<u32>,
}

impl Prompt<'_> {
    /// The body of the request.
    pub fn body(&self) -> Value {
        let mut body = json!({ "model": self.model });
        match self.api {
            Api::Completions => body["prompt"] = json!(self.text),
            Api::Chat => {
                let message = |role: &str, content: &str| json!({ "role": role, "content": content });
                let system = self.system.map(|text| message("system", text));
                let messages: Vec<Value> = system.into_iter().chain([message("user", self.text)]).collect();
                body["messages"] = json!(messages);
            }
        }
        body[if self.completion_tokens { "max_completion_tokens" } else { "max_tokens" }] =
            json!(self.max_tokens);
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        match (self.top, self.api) {
            (None, _) => {}
            (Some(top), Api::Completions) => body["logprobs"] = json!(top),
            (Some(top), Api::Chat) => {
                body["logprobs"] = json!(true);
                body["top_logprobs"] = json!(top);
            }
        }
        body
    }
}

/// An answer of a server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reply {
    pub text: String,
    /// The tokens of the text, each with its alternatives; empty if the server returns no log-probabilities.
    pub positions: Vec<Position>,
    /// Whether the answer ended at the length limit.
    pub cut: bool,
    /// Prompt and completion tokens; `None` if the server does not report them.
    pub tokens: Option<(u64, u64)>,
    pub id: Option<String>,
    pub model: Option<String>,
}

/// A token of an answer and its alternatives.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Position {
    /// The token in the answer.
    pub token: String,
    /// Its log-probability, if it is not among the most probable tokens, as for a server with constrained decoding.
    pub own: Option<f32>,
    /// The most probable tokens and their log-probabilities.
    pub top: Vec<(String, f32)>,
    /// The smallest log-probability in the list: an unlisted token is at most as probable.
    pub floor: f32,
}

impl Reply {
    /// Parses an answer. The error continues a sentence starting with the server's name.
    pub fn of(body: &Value, api: Api) -> Result<Reply, String> {
        if let Some(why) = error_message(body) {
            return Err(format!("answers with an error ({why})"));
        }
        let kind = body["object"].as_str().unwrap_or("completion");
        if !kind.ends_with("completion") {
            return Err(format!("answers with another kind of object ({:?})", start(kind)));
        }
        let choices = body["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
        let choice = choices.iter().find(|choice| choice["index"] == 0).or(choices.first());
        let choice = choice.ok_or("answers without choices")?;
        let text = match api {
            Api::Completions => choice["text"].as_str().map(str::to_owned),
            Api::Chat => choice.get("message").and_then(message_text),
        };
        let count = |name: &str| body["usage"][name].as_u64();
        let named = |name: &str| body[name].as_str().map(str::to_owned);
        Ok(Reply {
            text: text.ok_or("answers without a text")?,
            positions: positions(&choice["logprobs"]),
            cut: choice["finish_reason"] == "length",
            tokens: count("prompt_tokens").map(|read| (read, count("completion_tokens").unwrap_or(0))),
            id: named("id"),
            model: named("model"),
        })
    }

    /// Whether the answer contains alternatives with log-probabilities.
    pub fn has_log_probabilities(&self) -> bool {
        self.positions.iter().any(|position| !position.top.is_empty())
    }
}

/// The text of a message; a refusal counts as text. A message without content is an empty text.
fn message_text(message: &Value) -> Option<String> {
    let message = message.as_object()?;
    match message.get("content") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(parts)) => Some(parts.iter().filter_map(|part| part["text"].as_str()).collect()),
        Some(Value::Null) | None => {
            Some(message.get("refusal").and_then(Value::as_str).unwrap_or_default().to_owned())
        }
        Some(_) => None,
    }
}

fn positions(logprobs: &Value) -> Vec<Position> {
    let item = |entry: &Value| Some((entry["token"].as_str()?.to_owned(), probability(&entry["logprob"])?));
    if let Some(content) = logprobs["content"].as_array() {
        let position = |entry: &Value| {
            let top = entry["top_logprobs"].as_array().map(Vec::as_slice).unwrap_or_default();
            Position::new(
                entry["token"].as_str(),
                probability(&entry["logprob"]),
                top.iter().filter_map(item).collect(),
            )
        };
        return content.iter().map(position).collect();
    }
    let tokens = logprobs["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let position = |(at, token): (usize, &Value)| {
        let top = logprobs["top_logprobs"][at].as_object();
        let top =
            top.into_iter().flatten().filter_map(|(token, logp)| Some((token.clone(), probability(logp)?)));
        Position::new(token.as_str(), probability(&logprobs["token_logprobs"][at]), top.collect())
    };
    tokens.iter().enumerate().map(position).collect()
}

impl Position {
    fn new(token: Option<&str>, logp: Option<f32>, top: Vec<(String, f32)>) -> Position {
        let floor = top.iter().map(|(_, logp)| *logp).fold(f32::INFINITY, f32::min);
        let token = token.unwrap_or_default().to_owned();
        let own = logp.filter(|_| top.iter().all(|(listed, _)| *listed != token));
        Position { token, own, top, floor }
    }
}

/// A log-probability. Rounding may make it slightly positive.
fn probability(value: &Value) -> Option<f32> {
    value.as_f64().map(|logp| logp as f32).filter(|logp| *logp <= 0.01).map(|logp| logp.min(0.0))
}

/// The message of an error, in the formats of the known servers.
pub(super) fn error_message(body: &Value) -> Option<String> {
    let error = match &body["error"] {
        // The formats of FastAPI and of some versions of vLLM.
        Value::Null if body["object"] == "error" || body["choices"].is_null() => {
            [&body["message"], &body["detail"]].into_iter().find(|value| !value.is_null())?
        }
        Value::Null => return None,
        error => error.get("message").filter(|message| !message.is_null()).unwrap_or(error),
    };
    let text = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
    Some(one_line(&text, 300))
}

/// Parses the JSON of an answer. The error continues a sentence starting with the server's name.
pub(super) fn parsed(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|_| not_json(text))
}

fn not_json(text: &str) -> String {
    match text.trim_start() {
        "" => "answers with an empty body".into(),
        html if html.starts_with('<') => {
            format!("answers with HTML ({:?}): is it an OpenAI-compatible server?", start(html))
        }
        json if json.starts_with('{') => {
            format!("answers with an incomplete or invalid JSON object ({:?})", start(json))
        }
        other => format!("answers with text that is not JSON ({:?})", start(other)),
    }
}

/// The first 80 characters.
pub(super) fn start(text: &str) -> String {
    one_line(text, 80)
}

/// At most `longest` characters, on one line.
fn one_line(text: &str, longest: usize) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = characters.by_ref().take(longest).collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Reply, String> {
        Reply::of(&parsed(body)?, Api::Chat)
    }

    #[test]
    fn requests_have_the_format_of_the_api() {
        let prompt = Prompt {
            api: Api::Chat,
            model: "m",
            system: Some("s"),
            text: "t",
            max_tokens: 1,
            completion_tokens: false,
            temperature: Some(0.0),
            top: Some(20),
        };
        assert_eq!(
            prompt.body().to_string(),
            r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"t"}],"max_tokens":1,"temperature":0.0,"logprobs":true,"top_logprobs":20}"#
        );
        let prompt = Prompt { api: Api::Completions, completion_tokens: true, temperature: None, ..prompt };
        assert_eq!(
            prompt.body().to_string(),
            r#"{"model":"m","prompt":"t","max_completion_tokens":1,"logprobs":20}"#
        );
    }

    #[test]
    fn both_forms_of_log_probabilities_are_read_at_either_endpoint() {
        let chat = r#"{"content":[{"token":"1","logprob":-0.5,"top_logprobs":[{"token":"1","logprob":-0.5},{"token":" 2","logprob":-1.5},{"token":"x","logprob":null}]}]}"#;
        let older = r#"{"tokens":["1"],"token_logprobs":[-0.5],"top_logprobs":[{"1":-0.5," 2":-1.5,"y":5}]}"#;
        let expected = Position {
            token: "1".into(),
            own: None,
            top: vec![("1".into(), -0.5), (" 2".into(), -1.5)],
            floor: -1.5,
        };
        for logprobs in [chat, older] {
            let body = format!(
                r#"{{"choices":[{{"text":"1","message":{{"content":"1"}},"logprobs":{logprobs}}}]}}"#
            );
            for api in [Api::Chat, Api::Completions] {
                let reply = Reply::of(&parsed(&body).unwrap(), api).unwrap();
                assert_eq!((reply.text.as_str(), &reply.positions), ("1", &vec![expected.clone()]));
            }
        }
        // The token in the answer is not among the most probable ones: its log-probability is known and does not change
        // the floor.
        let position = Position::new(Some("2"), Some(-9.0), vec![("1".into(), -0.1)]);
        assert_eq!((position.top.len(), position.own, position.floor), (1, Some(-9.0), -0.1));
        for none in [
            "null",
            "{}",
            r#"{"content":null}"#,
            r#"{"content":[{"token":"1","logprob":0,"top_logprobs":[]}]}"#,
        ] {
            let reply =
                read(&format!(r#"{{"choices":[{{"message":{{"content":"1"}},"logprobs":{none}}}]}}"#))
                    .unwrap();
            assert!(!reply.has_log_probabilities(), "{none}");
        }
    }

    #[test]
    fn invalid_answers_are_recognised() {
        for (body, why) in [
            ("", "with an empty body"),
            ("<html>502", "with HTML"),
            ("{\"choices\": [", "incomplete or invalid JSON"),
            ("nonsense", "not JSON"),
            ("{}", "without choices"),
            ("[]", "without choices"),
            ("null", "without choices"),
            (r#"{"choices":[]}"#, "without choices"),
            (r#"{"choices":[{}]}"#, "without a text"),
            (r#"{"choices":[{"message":{"content":5}}]}"#, "without a text"),
            (r#"{"choices":[{"message":null}]}"#, "without a text"),
            (r#"{"object":"list","choices":[{"message":{"content":"1"}}]}"#, "another kind"),
            (r#"{"error":{"message":"overloaded\nnow"}}"#, "an error (overloaded now)"),
            (r#"{"error":"gone"}"#, "an error (gone)"),
            (r#"{"object":"error","message":"bad"}"#, "an error (bad)"),
            (r#"{"detail":"Not Found"}"#, "an error (Not Found)"),
        ] {
            let found = read(body).unwrap_err();
            assert!(found.contains(why), "{body}: {found}");
        }
        let refusal =
            read(r#"{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"length"}]}"#)
                .unwrap();
        assert_eq!((refusal.text.as_str(), refusal.cut, refusal.tokens), ("no", true, None));
        let parts = read(
            r#"{"choices":[{"index":1},{"index":0,"message":{"content":[{"text":"1"},{"text":"."}]}}],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#,
        );
        assert_eq!(parts.map(|reply| (reply.text, reply.tokens)), Ok(("1.".into(), Some((7, 2)))));
    }

    #[test]
    fn an_excerpt_is_short_and_on_one_line() {
        let long = "é".repeat(100);
        assert_eq!((start("a\nb"), start(&long).chars().count()), ("a b".into(), 81));
    }
}
