//! The messages: what is asked, and what of an answer is read.
//!
//! Log-probabilities come in two forms, and a server may use either below either path (llama.cpp answers `/completions` in
//! the form of chat): `logprobs.content[i].top_logprobs[j].{token, logprob}`, and, older,
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
    /// Whether the limit goes by the name that OpenAI's newer models want.
    pub completion_tokens: bool,
    /// `None`: the model's own.
    pub temperature: Option<f64>,
    /// How many of the most probable tokens are asked for.
    pub top: Option<u32>,
}

impl Prompt<'_> {
    /// The request's body.
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

/// What a server has answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reply {
    pub text: String,
    /// The tokens of the text, each with what could have stood in its place; empty where the server does not tell.
    pub positions: Vec<Position>,
    /// The answer ended because it was as long as allowed.
    pub cut: bool,
    /// Tokens read and written; `None` where the server does not tell.
    pub tokens: Option<(u64, u64)>,
    pub id: Option<String>,
    pub model: Option<String>,
}

/// A place in an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Position {
    /// What stands there.
    pub token: String,
    /// Its log-probability, where it is not among the most probable: a server whose answers are constrained writes such.
    pub own: Option<f32>,
    /// The most probable tokens and their log-probabilities.
    pub top: Vec<(String, f32)>,
    /// The smallest log-probability that is listed: what is not listed is at most as probable.
    pub floor: f32,
}

impl Reply {
    /// Reads an answer. The error continues the server's name.
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

    /// Whether the server tells what else could have stood in the answer.
    pub fn has_log_probabilities(&self) -> bool {
        self.positions.iter().any(|position| !position.top.is_empty())
    }
}

/// The text of a message; a refusal is one. A message without content is an empty text.
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

/// A log-probability. Rounding may put it a little above 0.
fn probability(value: &Value) -> Option<f32> {
    value.as_f64().map(|logp| logp as f32).filter(|logp| *logp <= 0.01).map(|logp| logp.min(0.0))
}

/// The message of an error, in the forms that servers have for it.
pub(super) fn error_message(body: &Value) -> Option<String> {
    let error = match &body["error"] {
        // FastAPI's own, and vLLM's of some versions.
        Value::Null if body["object"] == "error" || body["choices"].is_null() => {
            [&body["message"], &body["detail"]].into_iter().find(|value| !value.is_null())?
        }
        Value::Null => return None,
        error => error.get("message").filter(|message| !message.is_null()).unwrap_or(error),
    };
    let text = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
    Some(one_line(&text, 300))
}

/// The JSON of an answer. The error continues the server's name.
pub(super) fn parsed(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|_| not_json(text))
}

fn not_json(text: &str) -> String {
    match text.trim_start() {
        "" => "answers with nothing".into(),
        html if html.starts_with('<') => {
            format!("answers with HTML ({:?}): is it such a server?", start(html))
        }
        json if json.starts_with('{') => {
            format!("answers with half a JSON object, or a broken one ({:?})", start(json))
        }
        other => format!("answers with what is not JSON ({:?})", start(other)),
    }
}

/// The first 80 characters.
pub(super) fn start(text: &str) -> String {
    one_line(text, 80)
}

/// At most so many characters, in a line.
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
    fn a_request_is_what_the_apis_ask_for() {
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
    fn both_forms_of_log_probabilities_are_read_below_either_path() {
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
        // The token that was written is none of the most probable: it is known, and bounds nothing.
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
    fn what_is_no_answer_is_told_from_what_is_one() {
        for (body, why) in [
            ("", "with nothing"),
            ("<html>502", "with HTML"),
            ("{\"choices\": [", "half a JSON"),
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
    fn a_quotation_is_short_and_one_line() {
        let long = "é".repeat(100);
        assert_eq!((start("a\nb"), start(&long).chars().count()), ("a b".into(), 81));
    }
}
