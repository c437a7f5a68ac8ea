//! minijinja, configured as `transformers` configures Jinja2.

use web_time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, filters};

use super::strftime::strftime;
use super::{bounds, json, methods, python};

/// Creates an environment without templates.
pub(super) fn environment() -> Environment<'static> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let mut environment = bounds::environment();
    environment.set_syntax(syntax.expect("the delimiters are Jinja2's"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, _, value| Ok(out.write_str(&python::str(value))?));
    environment.add_filter("tojson", json::to_json);
    environment.add_filter("string", |value: &Value| python::str(value));
    let int =
        |state: &mut State, value: &Value, default: Option<Value>, base: Option<u32>, options: Kwargs| {
            or_default(filters::int(state, value, default.clone(), base, options), default, Value::from(0))
        };
    environment.add_filter("int", int);
    let float = |state: &mut State, value: &Value, default: Option<Value>, options: Kwargs| {
        or_default(filters::float(state, value, default.clone(), options), default, Value::from(0.0))
    };
    environment.add_filter("float", float);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    // Escapes as Jinja2's markup does.
    let escaped = |value: &Value| {
        let text = python::str(value).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.replace('\'', "&#39;").replace('"', "&#34;")
    };
    environment.add_filter("escape", escaped);
    environment.add_filter("e", escaped);
    // In Python, strings, maps and lists are iterable and have a length; nothing else has both.
    let sized = |value: &Value| matches!(value.kind(), ValueKind::String | ValueKind::Map | ValueKind::Seq);
    environment.add_test("sequence", sized);
    environment.add_test("iterable", move |value: &Value| {
        sized(value) || matches!(value.kind(), ValueKind::Iterable | ValueKind::Undefined)
    });
    environment.add_function("raise_exception", |why: String| -> Result<(), Error> {
        Err(Error::new(ErrorKind::InvalidOperation, why))
    });
    environment.add_function("strftime_now", |format: &str| strftime(format, SystemTime::now()));
    environment
}

/// The default replaces a value that cannot be read as a number.
fn or_default(read: Result<Value, Error>, default: Option<Value>, otherwise: Value) -> Result<Value, Error> {
    read.or_else(|e| match e.kind() {
        ErrorKind::InvalidOperation => Ok(default.unwrap_or(otherwise)),
        _ => Err(e),
    })
}

/// Returns `value`, or `other` if it is undefined (or, with `boolean`, empty).
fn default(
    value: Value,
    other: Option<Value>,
    boolean: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    let named: Option<Value> = options.get("default_value")?;
    let boolean = boolean.or(options.get("boolean")?).unwrap_or(false);
    options.assert_all_used()?;
    let absent = value.is_undefined() || boolean && !value.is_true();
    Ok(if absent { other.or(named).unwrap_or_else(|| Value::from("")) } else { value })
}
