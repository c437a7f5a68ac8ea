//! Dataset rows: JSON lines or a JSON array, gzip or not (told apart by content, not by name).
//!
//! A field is a string or a conversation, a list of `{"role", "content"}`. Every unusable row is an
//! [`Error::Row`] with its line; in an array the "line" is the element's number, and the message says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde::Serialize;
use serde_json::{Map, Value};

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

    /// What is said, without what is not text.
    pub fn text(&self) -> String {
        match self.0.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
            _ => String::new(),
        }
    }

    /// Whether nothing is said and no tool is called.
    fn is_empty(&self) -> bool {
        self.text().is_empty() && !self.0.contains_key("tool_calls")
    }
}

/// Messages, and what their row gives the chat template besides.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Conversation {
    /// In the order in which they are said.
    pub messages: Vec<Message>,
    /// Variables of the template: `tools`, `documents` and the row's `chat_template_kwargs`.
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

/// A preference: `chosen` is the better answer to `prompt`. All three are of one kind, string or conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// What was answered.
    pub prompt: Text,
    /// The better answer, without the prompt.
    pub chosen: Text,
    /// The worse answer, without the prompt.
    pub rejected: Text,
    /// The row.
    pub place: Place,
}

/// Text to learn or to score.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// What comes before, not learnt itself. `None` for a `{"text"}` row, which is learnt as a whole.
    pub prompt: Option<Text>,
    /// The text itself; of the prompt's kind where there is one.
    pub completion: Text,
    /// Its token ids, where the row has them as `oaif generate` writes them (`"token_ids"` beside `"prompt"`).
    pub token_ids: Option<Vec<u32>>,
    /// The row.
    pub place: Place,
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

/// What a dataset calls its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The prompt.
    pub prompt: String,
    /// An answer that comes with the prompt.
    pub reference: String,
    /// The better answer.
    pub chosen: String,
    /// The worse answer.
    pub rejected: String,
    /// The only answer.
    pub completion: String,
    /// A text without a prompt.
    pub text: String,
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
        }
    }
}

/// Reads `{"prompt"}` rows, with a `reference` where there is one. Of preference rows only the prompts are used,
/// be they explicit or the common beginning of both answers (see [`read_pairs`]).
pub fn read_prompts(path: &Path, columns: &Columns) -> Result<Vec<Prompt>> {
    read_rows(path, |row, place| {
        let prompt = match pair_with_implicit_prompt(row, columns)? {
            Some([prompt, ..]) => prompt,
            None => text(row, &columns.prompt)?,
        };
        let reference = match row.get(&columns.reference) {
            None | Some(Value::Null) => None,
            Some(Value::String(reference)) => Some(reference.clone()),
            Some(other) => return Err(wrong_type(&columns.reference, other, "a string")),
        };
        Ok(Prompt { prompt, reference, place })
    })
}

/// Reads `{"prompt", "chosen", "rejected"}` rows. Where the prompt is implicit (no prompt column, or a string
/// beside whole conversations), it is what both answers begin with: the messages that they share, or the shared
/// text up to its last "\n\nAssistant:" or, without that marker, up to its last white space.
pub fn read_pairs(path: &Path, columns: &Columns) -> Result<Vec<Pair>> {
    read_rows(path, |row, place| {
        let [prompt, chosen, rejected] = match pair_with_implicit_prompt(row, columns)? {
            Some(texts) => texts,
            None => [text(row, &columns.prompt)?, text(row, &columns.chosen)?, text(row, &columns.rejected)?],
        };
        check_answer(&columns.chosen, &chosen, Some(&prompt))?;
        check_answer(&columns.rejected, &rejected, Some(&prompt))?;
        Ok(Pair { prompt, chosen, rejected, place })
    })
}

/// Reads `{"prompt", "completion"}` rows, or `{"text"}` rows where there is no completion column; with a prompt and
/// `"token_ids"`, `"text"` is the completion.
pub fn read_completions(path: &Path, columns: &Columns) -> Result<Vec<Completion>> {
    read_rows(path, |row, place| {
        let answer = row.contains_key(&columns.prompt) && !row.contains_key(&columns.completion);
        if let (true, Some(token_ids)) = (answer, row.get("token_ids").filter(|ids| !ids.is_null())) {
            let prompt = text(row, &columns.prompt)?;
            // The answer to a conversation is a string, too, and may be empty.
            let completion = match (row.get(&columns.text), &prompt) {
                (Some(Value::String(text)), Text::Plain(_)) => Text::Plain(text.clone()),
                (Some(Value::String(text)), Text::Chat(_)) => {
                    let messages = vec![Message::new("assistant", text)];
                    Text::Chat(Conversation { messages, ..Conversation::default() })
                }
                (Some(other), _) => {
                    return Err(wrong_type(&columns.text, other, "a string beside token_ids"));
                }
                (None, _) => {
                    return Err(format!("column \"token_ids\" has no \"{}\" beside it", columns.text));
                }
            };
            let token_ids = serde_json::from_value(token_ids.clone());
            let token_ids =
                token_ids.map_err(|_| "column \"token_ids\" must be a list of token ids".to_owned())?;
            return Ok(Completion { prompt: Some(prompt), completion, token_ids: Some(token_ids), place });
        }
        let (prompt, column) = if row.contains_key(&columns.completion) || row.contains_key(&columns.prompt) {
            (Some(text(row, &columns.prompt)?), &columns.completion)
        } else {
            (None, &columns.text)
        };
        let completion = text(row, column)?;
        check_answer(column, &completion, prompt.as_ref())?;
        Ok(Completion { prompt, completion, token_ids: None, place })
    })
}

/// Reads `{"prompt", "response_1", "response_2"}` rows.
pub fn read_responses(path: &Path, columns: &Columns) -> Result<Vec<Responses>> {
    read_rows(path, |row, place| {
        let prompt = text(row, &columns.prompt)?;
        let responses = [text(row, "response_1")?, text(row, "response_2")?];
        for (column, response) in ["response_1", "response_2"].into_iter().zip(&responses) {
            check_kind(column, response, &prompt)?;
        }
        Ok(Responses { prompt, responses, place })
    })
}

type Row = Map<String, Value>;

/// Why a row is unusable; the path and the line are added by [`read_rows`].
type Why = String;

fn read_rows<T>(path: &Path, parse: impl Fn(&Row, Place) -> Result<T, Why>) -> Result<Vec<T>> {
    let bytes = read_decompressed(path)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    if bytes.starts_with(b"PAR1") {
        return Err(Error::file(path, "is a Parquet file: convert it to JSON lines"));
    }
    let file: Arc<Path> = path.into();
    let place = |line| Place { file: Some(file.clone()), line };
    let bad = |line, why: Why| place(line).error(why);
    let parse = |value: Value, line| match value {
        Value::Object(row) => parse(&row, place(line)),
        other => Err(format!("is {}, expected an object such as {{\"prompt\": \"…\"}}", kind_of(&other))),
    };

    let mut rows = Vec::new();
    if bytes.trim_ascii_start().starts_with(b"[") {
        let values: Vec<Value> =
            serde_json::from_slice(bytes).map_err(|e| bad(e.line(), format!("not valid JSON: {e}")))?;
        for (element, value) in (1..).zip(values) {
            let row = parse(value, element);
            rows.push(row.map_err(|why| bad(element, format!("element {element} of the array: {why}")))?);
        }
    } else {
        for (line, bytes) in (1..).zip(bytes.split(|&b| b == b'\n')) {
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let row =
                serde_json::from_slice(bytes).map_err(|e| not_json(&e)).and_then(|value| parse(value, line));
            rows.push(row.map_err(|why| bad(line, why))?);
        }
    }
    if rows.is_empty() {
        return Err(bad(1, "the file has no rows: expected JSON lines or a JSON array".into()));
    }
    Ok(rows)
}

fn read_decompressed(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut bytes = Vec::new();
    BufReader::new(file).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if !bytes.starts_with(b"\x1f\x8b") {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).map_err(Error::io("decompress", path))?;
    Ok(plain)
}

/// serde_json counts lines within the row, which would contradict the row's own.
fn not_json(e: &serde_json::Error) -> Why {
    let message = e.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    format!("not valid JSON: {what} at column {}", e.column())
}

fn kind_of(value: &Value) -> &'static str {
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

fn text(row: &Row, column: &str) -> Result<Text, Why> {
    const EXPECTED: &str = "a string or a list of {\"role\", \"content\"} with strings";
    let Some(value) = row.get(column) else {
        let present: BTreeSet<_> = row.keys().map(|k| format!("\"{k}\"")).collect();
        let present = present.into_iter().collect::<Vec<_>>().join(", ");
        return Err(format!(
            "no column \"{column}\" (the row has {}): rename one or say which column it is",
            if present.is_empty() { "none" } else { &present }
        ));
    };
    match value {
        Value::String(text) => Ok(Text::Plain(text.clone())),
        Value::Array(list) if list.is_empty() => {
            Err(format!("column \"{column}\" is an empty list of messages"))
        }
        Value::Array(list) => {
            let messages = list.iter().map(message).collect::<Result<_, _>>().map_err(|why| {
                format!("column \"{column}\" is a list of something else ({why}), expected {EXPECTED}")
            })?;
            Ok(Text::Chat(Conversation { messages, ..Conversation::default() }))
        }
        other => Err(wrong_type(column, other, EXPECTED)),
    }
}

fn message(value: &Value) -> Result<Message, Why> {
    let Value::Object(keys) = value else { return Err(format!("a message is {}", kind_of(value))) };
    for key in ["role", "content"] {
        match keys.get(key) {
            Some(Value::String(_)) => {}
            Some(other) => return Err(format!("a message's \"{key}\" is {}", kind_of(other))),
            None => return Err(format!("a message has no \"{key}\"")),
        }
    }
    Ok(Message(keys.clone()))
}

fn check_answer(column: &str, answer: &Text, prompt: Option<&Text>) -> Result<(), Why> {
    if answer.is_empty() {
        return Err(format!("column \"{column}\" has an empty answer: fill it in or drop the row"));
    }
    prompt.map_or(Ok(()), |prompt| check_kind(column, answer, prompt))
}

fn check_kind(column: &str, answer: &Text, prompt: &Text) -> Result<(), Why> {
    if answer.kind() == prompt.kind() {
        return Ok(());
    }
    let (answer, prompt) = (answer.kind(), prompt.kind());
    Err(format!("column \"{column}\" is {answer}, but its prompt is {prompt}: make both the same"))
}

/// [prompt, chosen, rejected] of a preference row whose prompt is what both answers begin with; `None` for a row
/// that is not one or states its prompt.
fn pair_with_implicit_prompt(row: &Row, columns: &Columns) -> Result<Option<[Text; 3]>, Why> {
    let (Some(chosen), Some(rejected)) = (row.get(&columns.chosen), row.get(&columns.rejected)) else {
        return Ok(None);
    };
    let stated = row.get(&columns.prompt);
    if stated.is_some_and(|prompt| !(prompt.is_string() && chosen.is_array() && rejected.is_array())) {
        return Ok(None);
    }
    let (chosen, rejected) = (text(row, &columns.chosen)?, text(row, &columns.rejected)?);
    check_kind(&columns.rejected, &rejected, &chosen)?;
    let no_prompt = format!(
        "no column \"{}\", and \"{}\" and \"{}\" have no common beginning that could be it",
        columns.prompt, columns.chosen, columns.rejected
    );
    split_common_prompt(chosen, rejected).map(Some).ok_or(no_prompt)
}

fn split_common_prompt(chosen: Text, rejected: Text) -> Option<[Text; 3]> {
    match (chosen, rejected) {
        (Text::Chat(a), Text::Chat(b)) => {
            let (mut prompt, mut rejected, variables) = (a.messages, b.messages, a.variables);
            // Each side keeps its last message even where the two are the same.
            let longest = prompt.len().min(rejected.len()).saturating_sub(1);
            let shared = prompt.iter().zip(&rejected).take(longest).take_while(|(x, y)| x == y).count();
            let (chosen, rejected) = (prompt.split_off(shared), rejected.split_off(shared));
            let chat = |messages| Text::Chat(Conversation { messages, variables: variables.clone() });
            (shared > 0).then(|| [prompt, chosen, rejected].map(chat))
        }
        (Text::Plain(a), Text::Plain(b)) => {
            let shared: usize =
                a.chars().zip(b.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
            let end = prompt_end(&a[..shared])?;
            Some([&a[..end], &a[end..], &b[end..]].map(|s| Text::Plain(s.to_owned())))
        }
        _ => None,
    }
}

/// Where the prompt ends in a beginning that two answers share. Answers may happen to start with the same words,
/// so the end is the last speaker's marker, or else the last white space (which goes to the answers, as most
/// tokenizers join it to the word after it).
fn prompt_end(shared: &str) -> Option<usize> {
    const MARKER: &str = "\n\nAssistant:";
    let end = match shared.rfind(MARKER) {
        Some(start) => start + MARKER.len(),
        None => shared.rfind(char::is_whitespace)?,
    };
    (!shared[..end].trim().is_empty()).then_some(end)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::files::shared;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn plain(text: &str) -> Text {
        Text::Plain(text.into())
    }

    fn chat<const N: usize>(turns: [(&str, &str); N]) -> Text {
        let messages = turns.map(|(role, content)| Message::new(role, content)).into();
        Text::Chat(Conversation { messages, ..Conversation::default() })
    }

    fn pairs(content: &str) -> Result<Vec<Pair>> {
        read_pairs(file(content.as_bytes()).path(), &Columns::default())
    }

    #[track_caller]
    fn assert_row_error<T: std::fmt::Debug>(result: Result<T>, at: usize, parts: &[&str]) {
        match result {
            Err(Error::Row { line, why, .. }) => {
                assert_eq!(line, at, "{why}");
                parts.iter().for_each(|part| assert!(why.contains(part), "{part:?} is not in {why:?}"));
            }
            other => panic!("expected Error::Row, got {other:?}"),
        }
    }

    #[test]
    fn lines_an_array_and_their_gzip_give_the_same_rows_whatever_the_name() {
        let lines = "\u{feff}{\"prompt\": \"a\"}\r\n\n  \n{\"prompt\": \"b\", \"reference\": \"r\"}";
        let array = "\n[{\"prompt\": \"a\"},\n{\"prompt\": \"b\", \"reference\": \"r\"}]";
        for (content, last_line) in [(lines, 4), (array, 2)] {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(content.as_bytes()).unwrap();
            for bytes in [content.as_bytes(), &gzip.finish().unwrap()] {
                let file = file(bytes);
                let rows = read_prompts(file.path(), &Columns::default()).unwrap();
                let place = |line| Place { file: Some(file.path().into()), line };
                let expected = [
                    Prompt { prompt: plain("a"), reference: None, place: place(1) },
                    Prompt { prompt: plain("b"), reference: Some("r".into()), place: place(last_line) },
                ];
                assert_eq!(rows, expected);
            }
        }
    }

    #[test]
    fn an_explicit_prompt_is_taken_as_it_is() {
        let rows = pairs(r#"{"prompt": "Q:", "chosen": " a", "rejected": " b"}"#).unwrap();
        let [Pair { prompt, chosen, rejected, .. }] = &rows[..] else { panic!() };
        assert_eq!([prompt, chosen, rejected], [&plain("Q:"), &plain(" a"), &plain(" b")]);
    }

    #[test]
    fn an_implicit_prompt_ends_at_the_last_speaker_marker() {
        let row = r#"{"chosen": "\n\nHuman: hi\n\nAssistant: It is é", "rejected": "\n\nHuman: hi\n\nAssistant: It is è"}"#;
        let [row] = &pairs(row).unwrap()[..] else { panic!() };
        assert_eq!(row.prompt, plain("\n\nHuman: hi\n\nAssistant:"));
        assert_eq!((&row.chosen, &row.rejected), (&plain(" It is é"), &plain(" It is è")));
    }

    #[test]
    fn an_implicit_prompt_without_marker_ends_at_the_last_white_space() {
        let [row] = &pairs(r#"{"chosen": "the sky is blue", "rejected": "the sky is black"}"#).unwrap()[..]
        else {
            panic!()
        };
        assert_eq!((&row.prompt, &row.chosen), (&plain("the sky is"), &plain(" blue")));
        let [row] = &pairs(r#"{"chosen": "say A", "rejected": "say A B"}"#).unwrap()[..] else { panic!() };
        assert_eq!((&row.prompt, &row.rejected), (&plain("say"), &plain(" A B")));
    }

    #[test]
    fn an_implicit_prompt_of_conversations_is_the_messages_they_share() {
        let row = r#"{"prompt": "ignored: the conversations hold it",
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#
            .replace('\n', "");
        let [row] = &pairs(&row).unwrap()[..] else { panic!() };
        assert_eq!(row.prompt, chat([("user", "q")]));
        assert_eq!((&row.chosen, &row.rejected), (&chat([("assistant", "a")]), &chat([("assistant", "a")])));
    }

    #[test]
    fn answers_without_a_common_beginning_are_refused() {
        assert_row_error(
            pairs(r#"{"chosen": "yes", "rejected": "no"}"#),
            1,
            &["\"prompt\"", "common beginning"],
        );
        let disjoint = r#"{"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}"#;
        assert_row_error(pairs(disjoint), 1, &["common beginning"]);
    }

    #[test]
    fn columns_can_be_renamed() {
        let file = file(br#"{"question": "q", "answer": "a", "story": "s"}"#);
        let mut columns =
            Columns { prompt: "question".into(), completion: "answer".into(), ..Columns::default() };
        let rows = read_completions(file.path(), &columns).unwrap();
        assert_eq!((&rows[0].prompt, &rows[0].completion), (&Some(plain("q")), &plain("a")));
        columns = Columns { text: "story".into(), ..Columns::default() };
        let rows = read_completions(file.path(), &columns).unwrap();
        assert_eq!((&rows[0].prompt, &rows[0].completion), (&None, &plain("s")));
    }

    #[test]
    fn responses_may_be_empty() {
        let file = file(br#"{"prompt": "q", "response_1": "", "response_2": "b"}"#);
        let rows = read_responses(file.path(), &Columns::default()).unwrap();
        assert_eq!((&rows[0].prompt, &rows[0].responses), (&plain("q"), &[plain(""), plain("b")]));
    }

    #[test]
    fn malformed_json_names_its_line() {
        let good = r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#;
        assert_row_error(
            pairs(&format!("{good}\n\n{{\"prompt\": oops}}\n")),
            3,
            &["not valid JSON", "column 12"],
        );
        assert_row_error(pairs(&format!("{good}\n{}", &good[..20])), 2, &["not valid JSON"]);
        assert_row_error(pairs(&format!("[{good},\n{good},\n oops]")), 3, &["not valid JSON"]);
        assert_row_error(
            pairs(&format!("{good}\n\"only a string\"")),
            2,
            &["is a string", "expected an object"],
        );
        let not_utf8 = file(b"{\"prompt\": \"\xff\"}");
        assert_row_error(read_prompts(not_utf8.path(), &Columns::default()), 1, &["not valid JSON"]);
    }

    #[test]
    fn an_empty_file_is_an_error() {
        for content in ["", "\n \n", "[]"] {
            assert_row_error(pairs(content), 1, &["no rows"]);
        }
    }

    #[test]
    fn a_missing_column_names_those_present() {
        assert_row_error(
            pairs(r#"{"prompt": "q", "chosen": "a", "worse": "b"}"#),
            1,
            &["no column \"rejected\"", "\"chosen\", \"prompt\", \"worse\""],
        );
        let file = file(br#"[{"prompt": "q", "completion": "a"}, {"prompt": "q"}]"#);
        let rows = read_completions(file.path(), &Columns::default());
        assert_row_error(rows, 2, &["element 2 of the array", "no column \"completion\"", "\"prompt\""]);
    }

    #[test]
    fn a_column_of_the_wrong_type_says_what_it_is() {
        for (value, found) in
            [("1", "a number"), ("null", "null"), ("[]", "an empty list"), ("[1]", "something else")]
        {
            let row = format!(r#"{{"prompt": "q", "chosen": {value}, "rejected": "b"}}"#);
            assert_row_error(pairs(&row), 1, &["\"chosen\"", found]);
        }
        let mixed = r#"{"prompt": "q", "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}"#;
        assert_row_error(pairs(mixed), 1, &["\"chosen\" is a conversation", "its prompt is a string"]);
    }

    #[test]
    fn an_empty_answer_is_an_error() {
        let row = r#"{"prompt": "q", "chosen": "a", "rejected": ""}"#;
        assert_row_error(pairs(row), 1, &["\"rejected\"", "empty"]);
        let row = r#"{"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": ""}], "rejected": "b"}"#;
        assert_row_error(pairs(row), 1, &["\"chosen\"", "empty"]);
        let file = file(br#"{"text": ""}"#);
        assert_row_error(read_completions(file.path(), &Columns::default()), 1, &["\"text\"", "empty"]);
    }

    #[test]
    fn an_absent_file_a_broken_gzip_and_parquet_are_clear_errors() {
        let absent = read_prompts(Path::new("no/such.jsonl"), &Columns::default()).unwrap_err();
        assert!(absent.to_string().starts_with("cannot read no/such.jsonl"), "{absent}");
        let broken = read_prompts(file(b"\x1f\x8b\x08\0\0").path(), &Columns::default()).unwrap_err();
        assert!(broken.to_string().starts_with("cannot decompress"), "{broken}");
        let parquet = read_prompts(file(b"PAR1\x15\x04").path(), &Columns::default()).unwrap_err();
        assert!(parquet.to_string().contains("Parquet"), "{parquet}");
    }

    #[test]
    fn the_real_datasets_are_read_whole() {
        let columns = Columns::default();
        let Some(hh) = shared("data/hh_harmless_base_test.jsonl.gz") else { return };
        let rows = read_pairs(&hh, &columns).unwrap();
        assert_eq!(rows.len(), 2312);
        for Pair { prompt, chosen, place: Place { line, .. }, .. } in &rows {
            let (Text::Plain(prompt), Text::Plain(chosen)) = (prompt, chosen) else { panic!("line {line}") };
            assert!(prompt.starts_with("\n\nHuman: ") && prompt.ends_with("\n\nAssistant:"), "line {line}");
            assert!(chosen.starts_with(' ') && !chosen.contains("\n\nHuman:"), "line {line}");
        }
        assert_eq!(read_prompts(&hh, &columns).unwrap().len(), 2312);
        let tldr = shared("data/tldr_preferences.jsonl").unwrap();
        assert_eq!(read_pairs(&tldr, &columns).unwrap().len(), 1000);
        assert_eq!(read_prompts(&tldr, &columns).unwrap().len(), 1000);
        let tldr = read_prompts(&shared("data/tldr_prompts.jsonl").unwrap(), &columns).unwrap();
        assert_eq!((tldr.len(), tldr.iter().filter(|p| p.reference.is_some()).count()), (1945, 1945));
        assert_eq!(
            read_completions(&shared("data/tinystories.jsonl").unwrap(), &columns).unwrap().len(),
            2316
        );
        assert_eq!(
            read_prompts(&shared("data/tinystories_prompts.jsonl").unwrap(), &columns).unwrap().len(),
            2314
        );
    }
}
