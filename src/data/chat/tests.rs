use serde_json::json;

use super::*;
use crate::files;

/// Has the features that public templates use: methods of strings and maps, whitespace control, a namespace, `loop`,
/// slices, `raise_exception`.
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
    with_tokens(source, json!({"bos_token": "<s>", "eos_token": "</s>"})).unwrap()
}

fn with_tokens(source: &str, tokens: Json) -> Result<ChatTemplate> {
    let dir = tempfile::tempdir().unwrap();
    files::write_atomic(&dir.path().join("tokenizer_config.json"), tokens.to_string().as_bytes())?;
    files::write_atomic(&dir.path().join("chat_template.jinja"), source.as_bytes())?;
    ChatTemplate::load(dir.path()).map(Option::unwrap)
}

fn turns(turns: &[(&str, &str)]) -> Conversation {
    let messages = turns.iter().map(|(role, content)| Message::new(role, content)).collect();
    Conversation { messages, ..Conversation::default() }
}

/// The expected texts are those of jinja2 3.1.6 with the settings of transformers 5.23.
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
fn a_prompt_and_its_response_are_rendered_together() {
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
fn an_exception_raised_by_a_template_is_an_error_with_its_message() {
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

/// Writes a model's folder with these files, and renders a conversation with these variables by its template.
fn rendered(given: &[(&str, &str)], variables: Json) -> Result<Option<String>> {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in given {
        let path = dir.path().join(name);
        files::create_dir_all(path.parent().unwrap())?;
        files::write_atomic(&path, content.as_bytes())?;
    }
    let variables = Arc::new(variables.as_object().unwrap().clone());
    let conversation = Conversation { variables, ..turns(&[]) };
    let template = ChatTemplate::load(dir.path())?;
    template.map(|template| template.render(&conversation, false)).transpose()
}

#[test]
fn the_template_is_found_in_every_supported_place() {
    const CONFIG: &str = "tokenizer_config.json";
    let render = |given: &[(&str, &str)]| rendered(given, json!({})).unwrap();
    let list = r#"{"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "list"}]}"#;
    assert_eq!(render(&[]), None);
    assert_eq!(render(&[(CONFIG, "{}")]), None);
    assert_eq!(render(&[(CONFIG, r#"{"chat_template": null}"#)]), None);
    assert_eq!(render(&[("chat_template.json", r#"{"chat_template": "processor"}"#)]).unwrap(), "processor");
    let config = (CONFIG, r#"{"chat_template": "one"}"#);
    assert_eq!(render(&[config]).unwrap(), "one");
    assert_eq!(render(&[config, ("chat_template.json", r#"{"chat_template": "no"}"#)]).unwrap(), "one");
    assert_eq!(render(&[(CONFIG, list)]).unwrap(), "list");
    assert_eq!(
        render(&[(CONFIG, r#"{"chat_template": {"default": "map", "rag": "{% if"}}"#)]).unwrap(),
        "map"
    );
    assert_eq!(render(&[(CONFIG, list), ("chat_template.jinja", "file\n")]).unwrap(), "file");
    let error = |given: &[(&str, &str)]| rendered(given, json!({})).unwrap_err().to_string();
    let broken = error(&[("chat_template.jinja", "{% if %}")]);
    assert!(broken.contains("chat_template.jinja: the chat template does not parse"), "{broken}");
    let odd = error(&[(CONFIG, r#"{"chat_template": 1}"#)]);
    assert!(odd.contains("tokenizer_config.json: \"chat_template\" is neither"), "{odd}");
    // As in transformers, template files replace the configuration's templates.
    let additional = error(&[config, ("additional_chat_templates/tool_use.jinja", "tools")]);
    assert!(additional.contains("none named \"default\""), "{additional}");
}

#[test]
fn conversations_with_tools_use_the_tool_template() {
    let files = [("chat_template.jinja", "plain"), ("additional_chat_templates/tool_use.jinja", "for tools")];
    let render =
        |given: &[(&str, &str)], tools: Json| rendered(given, json!({"tools": tools})).unwrap().unwrap();
    assert_eq!(render(&files, json!([{"name": "f"}])), "for tools");
    assert_eq!(render(&files, json!(null)), "plain");
    assert_eq!(render(&files[..1], json!([{"name": "f"}])), "plain");
}

/// The texts are those of `tokenizer.special_tokens_map` in transformers 5.24.
#[test]
fn a_template_has_the_special_tokens_of_the_files() {
    const TEMPLATE: (&str, &str) = (
        "chat_template.jinja",
        "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ image_token }}|{{ bos_token is defined }}",
    );
    let seen = |config: &str, map: &str| {
        let merges = ("tokenizer.json", r#"{"model": {"merges": []}}"#);
        let given = [TEMPLATE, ("tokenizer_config.json", config), ("special_tokens_map.json", map), merges];
        rendered(&given, json!({})).unwrap().unwrap()
    };
    assert_eq!(seen("{}", "{}"), "||||False");
    assert_eq!(
        seen(r#"{"bos_token": null, "eos_token": {"content": "E", "lstrip": false}}"#, "{}"),
        "|E|||False"
    );
    assert_eq!(
        seen(r#"{"bos_token": "B"}"#, r#"{"bos_token": "M", "pad_token": {"content": "P"}}"#),
        "M||P||True"
    );
    let decoder = r#"{"bos_token": "B", "added_tokens_decoder": {}}"#;
    assert_eq!(seen(decoder, r#"{"bos_token": "M", "pad_token": "P"}"#), "B||||True");
    assert_eq!(seen(r#"{"extra_special_tokens": {"image_token": "I"}}"#, "{}"), "|||I|False");
    assert_eq!(seen(r#"{"image_token": "I", "add_bos_token": true}"#, "{}"), "|||I|False");
    assert_eq!(seen(r#"{"additional_special_tokens": ["A"]}"#, "{}"), "||||False");
    assert_eq!(seen(r#"{"tokenizer_class": "LlamaTokenizerFast"}"#, "{}"), "<s>|</s>|||True");
    assert_eq!(seen(r#"{"tokenizer_class": "LlamaTokenizer", "bos_token": null}"#, "{}"), "|</s>|||False");
    let neox = r#"{"tokenizer_class": "GPTNeoXTokenizer"}"#;
    assert_eq!(seen(neox, "{}"), "<|endoftext|>|<|endoftext|>|<|padding|>||True");
    let own =
        rendered(&[TEMPLATE, ("tokenizer_config.json", r#"{"bos_token": "B"}"#)], json!({"bos_token": "V"}));
    assert_eq!(own.unwrap().unwrap(), "V||||True");
}

/// Runs every case of `cases`, which tests/fixtures/make_chat.py generates. The outcome is one of: equal, different, an
/// error in both, an error only in transformers, an error only here. Unsupported cases must be errors, never a
/// different text.
fn compared(cases: &Json) -> (Vec<(String, &'static str)>, Vec<String>) {
    let (mut outcomes, mut differences) = (Vec::new(), Vec::new());
    for case in cases["cases"].as_array().unwrap() {
        let given = |name: &str| match case[name].as_str() {
            Some(named) => cases["conversations"][named].clone(),
            None => case[name].clone(),
        };
        let messages =
            given("messages").as_array().unwrap().iter().map(|m| Message::try_from(m).unwrap()).collect();
        let mut variables = case["variables"].as_object().unwrap().clone();
        if variables.contains_key("x") {
            variables.insert("x".to_owned(), cases["x"].clone());
        }
        let conversation = Conversation { messages, variables: Arc::new(variables) };
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        let here = with_tokens(case["template"].as_str().unwrap(), case["special"].clone())
            .and_then(|template| template.render(&conversation, prompt));
        let outcome = match (case["text"].as_str(), &here) {
            (Some(there), Ok(here)) if there == here => "equal",
            (Some(_), Ok(_)) => "different",
            (Some(_), Err(_)) if case["unsupported"] == true => "not supported",
            (Some(_), Err(_)) => "refused here alone",
            (None, Ok(_)) => "refused by transformers alone",
            (None, Err(_)) => "refused by both",
        };
        let name = case["name"].as_str().unwrap().to_owned();
        if matches!(outcome, "different" | "refused here alone") {
            let there = if case["text"].is_null() { &case["refused"] } else { &case["text"] };
            let here = here.unwrap_or_else(|e| e.to_string());
            differences.push(format!("{outcome}: {name}\n  there {there}\n  here  {here:?}"));
        }
        outcomes.push((name, outcome));
    }
    (outcomes, differences)
}

#[test]
fn the_fixture_templates_render_as_in_transformers() {
    let cases = include_str!("../../../tests/fixtures/chat.json");
    let (outcomes, differences) = compared(&serde_json::from_str(cases).unwrap());
    assert!(outcomes.len() > 700);
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}

/// Needs `OAIF_TEMPLATES=FOLDER`, the folder that `python tests/fixtures/make_chat.py FOLDER` has written.
#[test]
fn templates_of_a_folder_render_as_in_transformers() {
    let Some(folder) = std::env::var_os("OAIF_TEMPLATES") else {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: OAIF_TEMPLATES absent\n");
        return;
    };
    let cases = files::read_json(&Path::new(&folder).join("cases.json")).unwrap();
    let (outcomes, differences) = compared(&cases);
    for (name, outcome) in &outcomes {
        println!("{outcome:<30} {name}");
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}

/// The error message of a hostile template. It must be an error before the timeout, which is for busy machines.
fn stopped(source: &str) -> String {
    let render = |template: ChatTemplate| template.render(&turns(&[("user", "hi")]), true);
    let start: String = source.chars().take(120).collect();
    let why = match with_tokens(source, json!({})).and_then(render) {
        Ok(text) => panic!("{start} gives {} bytes", text.len()),
        Err(e) => e.to_string(),
    };
    assert!(!why.contains("it took longer than"), "{start}: {why}");
    assert!(why.len() < 1000, "{start}: {why}");
    why
}

#[test]
fn a_namespace_that_contains_itself_is_an_error() {
    for (before, value) in [
        ("", "ns"),
        ("", "[ns]"),
        ("", "{'a': [1, ns]}"),
        ("{% set other = namespace(b=1) %}{% set other.b = ns %}", "other"),
        ("{% set alias = ns %}", "alias"),
        ("", "(1, ns)"),
        ("", "ns if true"),
        ("", "1, ns"),
    ] {
        for used in ["{{ ns }}", "{{ ns|length }}", "{{ ns == ns.x }}", "{{ ns|tojson }}", "{{ ns ~ '' }}"] {
            let source = format!("{{% set ns = namespace(x=1) %}}{before}{{%- set ns.x = {value} -%}}{used}");
            assert!(stopped(&source).contains("a namespace cannot hold a namespace"), "{source}");
        }
    }
}

#[test]
fn long_chains_and_deep_nesting_are_errors_before_parsing() {
    let chain = |part: &str, count: usize| format!("{{{{ 1{} }}}}", part.repeat(count));
    for part in ["+1", ".a", "|e", "[0]", " if 1 else 1", " is odd", "(1)", " and 1", "~1", ", 1", " == 1"] {
        assert!(stopped(&chain(part, 24_000)).contains("more than 1000 tokens"), "{part}");
    }
    for start in ["-", "not ", "(", "[", "{1:", "f(", "x|f("] {
        let source = format!("{{{{ {}1 }}}}", start.repeat(24_000));
        assert!(stopped(&source).contains("more than 1000 tokens or 50 nested brackets"), "{start}");
    }
    let elifs = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(20_000));
    assert!(stopped(&elifs).contains("20000 \"elif\" tags"));
    for (open, count) in [("{% if 1 %}", 20_000), ("{% for a in [1] %}", 20_000), ("{% macro m() %}", 20_000)]
    {
        assert!(stopped(&open.repeat(count)).contains("does not parse"));
    }
    assert!(stopped(&" ".repeat(600 << 10)).contains("more than the limit of 524288"));
}

#[test]
fn long_templates_without_chains_are_rendered() {
    let words = "{{ 'a' ~ 'b' }}".repeat(10_000);
    let template = template(&words);
    assert_eq!(template.render(&turns(&[]), true).unwrap().len(), 20_000);
}

#[test]
fn templates_that_loop_forever_or_grow_without_bound_are_stopped() {
    let big = "{% set b = 'x' * 1000000 %}";
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(x) %}{{ f(x ~ x) }}{{ f(x ~ x) }}{% endmacro %}{{ f('abc') }}",
        "{% macro f(x) %}{{ f([x, x]) }}{% endmacro %}{{ f(1) }}",
        "{{ 'x' * 10**9 }}",
        "{{ [1] * 10**9 }}",
        "{{ (range(99999)|list * 9999)|join }}",
        "{{ 'x'.center(10**9) }}",
        "{{ 'x'.zfill(10**9) }}",
        "{{ 'x'.ljust(10**10) }}",
        "{{ '{:1000000000}'.format('x') }}",
        "{{ '{:{}}'.format('x', 10**9) }}",
        "{{ '{:.1000000000f}'.format(1.5) }}",
        "{{ '%*d'|format(10**9, 1) }}",
        "{{ '%.1000000000f'|format(1.5) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 'x'|indent(10**9, true) }}",
        "{{ [1]|tojson(indent='x' * 10**8) }}",
        "{{ range(9999)|list|tojson(indent='x' * 10**6) }}",
        "{{ range(9999)|list|tojson(separators=('x' * 10**6, ':')) }}",
        "{{ dict(a=1)|tojson(separators=(',', 'x' * 10**8))|tojson|tojson|tojson }}",
        "{{ [1]|batch(10**9, 'x')|list }}",
        "{{ [1]|slice(10**9, 'x')|list }}",
        "{% set ns = namespace(a='x') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}",
        "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = {'a': ns.a} %}{% endfor %}",
        "{% set ns = namespace(a=1) %}{% for i in range(99999) %}{% set ns.a = ns.a|tojson|tojson %}{% endfor %}",
    ] {
        stopped(source);
    }
    for grows in [
        "b|replace('x', b)",
        "b.replace('x', b)",
        "b|list|join(b)",
        "b.join(b)",
        "b.join(b|list)",
        "(('x\\n' * 99999)|indent(99999))",
        "b|map('replace', 'x', b)|list",
        "b.split('x')|map('string')|join(b)",
        "(b|list)|tojson(indent=64)|replace('x', b)",
        "[b, b, b] * 999 |join(b)",
    ] {
        stopped(&format!("{big}{{{{ {grows} }}}}"));
    }
    let nested = "{% set x = [x] %}".repeat(20_000);
    assert!(stopped(&format!("{nested}{{{{ x }}}}")).contains("nested too deeply"));
}
