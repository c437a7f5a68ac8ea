//! Chat templates: Jinja, set up as `transformers` sets it up.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, Value, context};
use regex::Regex;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::rows::{Conversation, Text};
use crate::error::{Error, Result};
use crate::files;

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl ChatTemplate {
    /// The template of the model in `dir`: `chat_template.jinja`, or else `chat_template` in
    /// `tokenizer_config.json` (a string, or a list of which "default" is taken). `None` where there is none.
    pub fn from_tokenizer_config(dir: &Path) -> Result<Option<ChatTemplate>> {
        let path = dir.join("tokenizer_config.json");
        let config = files::read_json_if_present(&path)?.unwrap_or_default();
        let special = |name: &str| {
            let token = &config[name];
            token.as_str().or(token["content"].as_str()).map(str::to_owned)
        };
        let jinja = dir.join("chat_template.jinja");
        let (path, source) = if jinja.exists() {
            let source = String::from_utf8(files::read(&jinja)?);
            (&jinja, source.map_err(|_| Error::file(&jinja, "is not UTF-8 text"))?)
        } else {
            let found = match &config["chat_template"] {
                serde_json::Value::Array(named) => named
                    .iter()
                    .find(|t| t["name"] == "default")
                    .map_or(&serde_json::Value::Null, |t| &t["template"]),
                one => one,
            };
            let Some(source) = found.as_str() else { return Ok(None) };
            (&path, source.to_owned())
        };
        ChatTemplate::new(&source, special("bos_token"), special("eos_token"))
            .map(Some)
            .map_err(|e| Error::file(path, format!("the chat template does not parse ({e})")))
    }

    /// Parses a template; the tokens are what it sees as `bos_token` and `eos_token`.
    fn new(source: &str, bos: Option<String>, eos: Option<String>) -> Result<ChatTemplate, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |why: String| -> Result<(), minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
        });
        environment.add_function("strftime_now", |format: &str| strftime(format, SystemTime::now()));
        environment.add_template_owned("chat", without_generation_tags(source))?;
        Ok(ChatTemplate { environment, bos_token: bos, eos_token: eos })
    }

    /// The conversation as the model reads it; with `add_generation_prompt`, up to where its answer begins.
    /// What the template refuses is [`Error::Config`].
    pub fn render(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<String> {
        let (bos_token, eos_token) = (&self.bos_token, &self.eos_token);
        let messages = Value::from(Serde(&conversation.messages));
        let template = self.environment.get_template("chat").expect("added in new");
        template
            .render(context! { messages, add_generation_prompt, bos_token, eos_token })
            .map_err(|e| Error::config("chat template", format!("cannot render this conversation ({e})")))
    }
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

/// `{% generation %}` blocks mark the assistant's part for masking and render as what is inside.
fn without_generation_tags(source: &str) -> String {
    let tag = |name| Regex::new(&format!(r"(\{{%[-+]?\s*){name}(\s*[-+]?%\}})")).expect("a valid pattern");
    let source = tag("generation").replace_all(source, "${1}if true${2}");
    tag("endgeneration").replace_all(&source, "${1}endif${2}").into_owned()
}

/// Python's `json.dumps(value, ensure_ascii=False)`: a space after ',' and ':', nothing escaped for HTML.
fn to_json(value: &Value, options: Kwargs) -> Result<String, minijinja::Error> {
    struct Spaced;
    impl Formatter for Spaced {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            w: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            w.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_key<W: ?Sized + std::io::Write>(
            &mut self,
            w: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            w.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> std::io::Result<()> {
            w.write_all(b": ")
        }
    }
    let indent: Option<usize> = options.get("indent")?;
    let mut json = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut json, Spaced)),
        Some(n) => {
            let indent = " ".repeat(n.min(16));
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, pretty))
        }
    };
    let bad = |why: String| minijinja::Error::new(ErrorKind::BadSerialization, why);
    written.map_err(|e| bad(e.to_string()))?;
    String::from_utf8(json).map_err(|e| bad(e.to_string()))
}

/// C's `strftime` in UTC (the standard library knows no local time), with the directives that templates use;
/// others stay as they are.
fn strftime(format: &str, time: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        u64::from((year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400))
    };
    let (mut year, mut day) = (1970, days);
    while day >= 365 + leap(year) {
        day -= 365 + leap(year);
        year += 1;
    }
    let (day_of_year, mut month) = (day + 1, 0);
    for length in [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let day = day + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let weekday = DAYS[((days + 4) % 7) as usize];

    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (unpadded, after) = after.strip_prefix('-').map_or((false, after), |after| (true, after));
        let two = |n: u64| if unpadded { n.to_string() } else { format!("{n:02}") };
        let Some(directive) = after.chars().next() else {
            out.push('%');
            rest = after;
            continue;
        };
        match directive {
            'Y' => out.push_str(&year.to_string()),
            'y' => out.push_str(&two(year % 100)),
            'm' => out.push_str(&two(month as u64 + 1)),
            'd' => out.push_str(&two(day)),
            'e' => out.push_str(&format!("{day:>2}")),
            'j' => {
                out.push_str(&if unpadded { day_of_year.to_string() } else { format!("{day_of_year:03}") })
            }
            'B' => out.push_str(MONTHS[month]),
            'b' | 'h' => out.push_str(&MONTHS[month][..3]),
            'A' => out.push_str(weekday),
            'a' => out.push_str(&weekday[..3]),
            'H' => out.push_str(&two(hour)),
            'I' => out.push_str(&two((hour + 11) % 12 + 1)),
            'M' => out.push_str(&two(minute)),
            'S' => out.push_str(&two(second)),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'F' => out.push_str(&format!("{year}-{:02}-{day:02}", month + 1)),
            'T' => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            'Z' => out.push_str("UTC"),
            'z' => out.push_str("+0000"),
            '%' => out.push('%'),
            other => {
                out.push('%');
                out.push(other);
            }
        }
        rest = &after[directive.len_utf8()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::data::rows::Message;

    /// Uses what templates in the wild use: methods of strings and maps, whitespace control, a namespace,
    /// `loop`, slices, `raise_exception`.
    const TEMPLATE: &str = "\
{{- bos_token }}
{%- set ns = namespace(turns=0) %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'].strip() %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = 'Be brief.' %}
{%- endif %}
{{- '<|system|>' + system + '\\n' }}
{% for message in messages %}
    {% if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate: ' ~ message.role) }}
    {% endif %}
    {% set ns.turns = ns.turns + 1 %}
    {% if message.role == 'assistant' %}
{% generation %}
{{ '<|assistant|>' + message.content.split('</think>')[-1].lstrip() + eos_token }}
{% endgeneration %}
    {% else %}
{{ '<|' ~ message.get('role') ~ '|>' ~ message['content'] | trim }}
    {% endif %}
{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
";

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, Some("<s>".into()), Some("</s>".into())).unwrap()
    }

    fn turns(turns: &[(&str, &str)]) -> Conversation {
        let messages = turns.iter().map(|(role, content)| Message::new(role, content)).collect();
        Conversation { messages, ..Conversation::default() }
    }

    /// The expected texts were checked against jinja2 3.1.6 as transformers 5.23 sets it up.
    #[test]
    fn a_template_renders_as_in_transformers() {
        let template = template(TEMPLATE);
        let question = turns(&[("user", " hi ")]);
        assert_eq!(
            template.render(&question, true).unwrap(),
            "<s><|system|>Be brief.\n\n<|user|>hi\n<|assistant|>"
        );
        let dialogue = turns(&[("system", " S "), ("user", "hi"), ("assistant", "<think>x</think> yo")]);
        assert_eq!(
            template.render(&dialogue, false).unwrap(),
            "<s><|system|>S\n\n<|user|>hi\n<|assistant|>yo</s>\n"
        );
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let messages = turns(&[("user", "<a> & é \"q\"")]);
        let flat = template("{{ messages | tojson }}").render(&messages, false).unwrap();
        assert_eq!(flat, r#"[{"role": "user", "content": "<a> & é \"q\""}]"#);
        let indented = template("{{ {'a': [1, 2]} | tojson(indent=2) }}").render(&turns(&[]), false).unwrap();
        assert_eq!(indented, "{\n  \"a\": [\n    1,\n    2\n  ]\n}");
    }

    #[test]
    fn dates_are_written_as_strftime_writes_them() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(strftime("%d %b %Y", at(951_827_696)), "29 Feb 2000");
        assert_eq!(
            strftime("%A %-d %B %y, %I:%M:%S %p, day %j", at(951_827_696)),
            "Tuesday 29 February 00, 12:34:56 PM, day 060"
        );
        assert_eq!(strftime("%F%T 100%% %q é%", at(1_735_689_599)), "2024-12-3123:59:59 100% %q é%");
        let now = template("{{ strftime_now('%Y') }}").render(&turns(&[]), false).unwrap();
        assert!(now.parse::<u64>().unwrap() >= 2024);
    }

    #[test]
    fn a_prompt_and_its_answer_are_rendered_together() {
        let template = template(TEMPLATE);
        let prompt = Text::Chat(turns(&[("user", "hi")]));
        let answer = Text::Chat(turns(&[("assistant", "yo")]));
        let before = render_prompt(&prompt, Some(&template)).unwrap();
        let whole = render_whole(Some(&prompt), &answer, Some(&template)).unwrap();
        assert_eq!(whole, format!("{before}yo</s>\n"));
        assert_eq!(whole, template.render(&turns(&[("user", "hi"), ("assistant", "yo")]), false).unwrap());
        let plain = Text::Plain(" as it is".into());
        assert_eq!(render_prompt(&plain, None).unwrap(), " as it is");
        assert_eq!(render_whole(None, &plain, None).unwrap(), " as it is");
        assert_eq!(render_whole(Some(&plain), &plain, None).unwrap(), " as it is as it is");
        assert!(render_whole(Some(&plain), &answer, Some(&template)).is_err());
    }

    #[test]
    fn what_a_template_refuses_is_an_error_with_its_words() {
        let refused = template(TEMPLATE).render(&turns(&[("assistant", "yo")]), true).unwrap_err();
        assert!(matches!(refused, Error::Config { .. }));
        assert!(refused.to_string().contains("roles must alternate: assistant"), "{refused}");
    }

    #[test]
    fn a_conversation_without_a_template_is_a_clear_error() {
        let prompt = Text::Chat(turns(&[("user", "hi")]));
        let error = render_prompt(&prompt, None).unwrap_err();
        assert!(matches!(error, Error::Config { .. }));
        assert!(error.to_string().contains("no chat template"), "{error}");
        assert!(render_whole(Some(&prompt), &prompt, None).is_err());
    }

    #[test]
    fn the_template_is_found_in_each_of_its_places() {
        let dir = tempfile::tempdir().unwrap();
        let render = || {
            let template = ChatTemplate::from_tokenizer_config(dir.path()).unwrap()?;
            Some(template.render(&turns(&[]), false).unwrap())
        };
        let config = dir.path().join("tokenizer_config.json");
        assert_eq!(render(), None);
        files::write_atomic(&config, br#"{"bos_token": "B"}"#).unwrap();
        assert_eq!(render(), None);
        files::write_atomic(&config, br#"{"bos_token": "B", "chat_template": "one {{ bos_token }}"}"#)
            .unwrap();
        assert_eq!(render().unwrap(), "one B");
        let list =
            br#"{"bos_token": {"content": "B"}, "chat_template": [{"name": "tool_use", "template": "no"},
            {"name": "default", "template": "list {{ bos_token }}"}]}"#;
        files::write_atomic(&config, list).unwrap();
        assert_eq!(render().unwrap(), "list B");
        files::write_atomic(&dir.path().join("chat_template.jinja"), b"file {{ bos_token }}").unwrap();
        assert_eq!(render().unwrap(), "file B");
        files::write_atomic(&dir.path().join("chat_template.jinja"), b"{% if %}").unwrap();
        let broken = ChatTemplate::from_tokenizer_config(dir.path()).unwrap_err().to_string();
        assert!(broken.contains("chat_template.jinja: the chat template does not parse"), "{broken}");
    }
}
