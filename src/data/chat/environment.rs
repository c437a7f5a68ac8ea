//! minijinja, set up as `transformers` sets up Jinja2.

use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use super::strftime::strftime;
use super::{bounds, json, methods, python};

/// An environment without templates.
pub(super) fn environment() -> Environment<'static> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let mut environment = bounds::environment();
    environment.set_syntax(syntax.expect("the delimiters are Jinja2's"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, _, value| Ok(out.write_str(&python::str(value))?));
    environment.add_filter("tojson", json::to_json);
    environment.add_filter("string", |value: &Value| python::str(value));
    environment.add_function("raise_exception", |why: String| -> Result<(), Error> {
        Err(Error::new(ErrorKind::InvalidOperation, why))
    });
    environment.add_function("strftime_now", |format: &str| strftime(format, SystemTime::now()));
    environment
}
