//! Templates with placeholders for the two judges that are language models, with limits on steps, memory, recursion and
//! time.

use std::collections::HashSet;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Value, context};

use super::names;
use crate::data::chat::bounds;
use crate::error::{Error, Result};

const NAME: &str = "judge";

/// A Jinja template. Values are inserted verbatim: Jinja syntax in them has no effect. Lines that hold nothing but a
/// `{% … %}` leave no blank line.
#[derive(Clone, Debug)]
pub(super) struct TextTemplate {
    environment: Arc<Environment<'static>>,
    /// The variables that the template uses.
    used: HashSet<String>,
    instruction: String,
}

impl TextTemplate {
    /// Parses the template `source`, which must use the variables `required` and may use those in `optional`. The error
    /// continues a sentence that starts with the name of the template.
    pub(super) fn new(source: &str, required: &[&str], optional: &[&str]) -> Result<TextTemplate, String> {
        let broken = |e: String| format!("is not a valid template ({e})");
        let mut environment = bounds::environment();
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the delimiters are Jinja2's"));
        let environment = Arc::new(bounds::add_template(environment, NAME, source).map_err(broken)?);

        let used = bounds::variables(&environment, NAME).map_err(broken)?;
        if let Some(missing) = required.iter().find(|name| !used.contains(**name)) {
            let all: Vec<String> = required.iter().map(|name| format!("{{{{ {name} }}}}")).collect();
            return Err(format!("has no {{{{ {missing} }}}}: it needs {}", all.join(", ")));
        }
        let known = [required, optional].concat();
        let globals: Vec<&str> = environment.globals().map(|(name, _)| name).collect();
        let mut unknown: Vec<&String> =
            used.iter().filter(|n| !known.contains(&n.as_str()) && !globals.contains(&n.as_str())).collect();
        unknown.sort();
        if let Some(name) = unknown.first() {
            let error = names::unknown("placeholder", name, &known);
            return Err(format!("has a {error}"));
        }
        let template = TextTemplate { environment, used, instruction: String::new() };
        // Jinja resolves filters and functions only at rendering. Two values are tried, as a template may require a
        // number.
        let tried = ["x", "1"]
            .map(|word| template.render(known.iter().map(|name| (*name, Value::from(word))).collect()));
        match tried {
            [Err(why), Err(_)] => Err(broken(why)),
            _ => Ok(template),
        }
    }

    /// Sets the value of `instruction`. Errors if the template does not use it.
    pub(super) fn with_instruction(self, instruction: &str) -> Result<TextTemplate, String> {
        if !self.used.contains("instruction") {
            let why = "has no {{ instruction }}, but one is given: put the placeholder in or leave it out";
            return Err(why.to_owned());
        }
        Ok(TextTemplate { instruction: instruction.to_owned(), ..self })
    }

    /// The source text.
    pub(super) fn source(&self) -> String {
        self.environment.get_template(NAME).expect("added in new").source().to_owned()
    }

    /// The user's instruction to the judge; empty if there is none.
    pub(super) fn instruction(&self) -> &str {
        &self.instruction
    }

    /// Renders the template with these variables and its instruction. The error is the reason of the failure.
    pub(super) fn render(&self, variables: Value) -> Result<String, String> {
        let instruction = &self.instruction;
        bounds::render(&self.environment, NAME, context! { instruction, ..variables })
    }
}

/// An error about one pair; it does not end the run.
pub(super) fn unrendered(why: String) -> Error {
    Error::config("judge-template", format!("cannot render this pair ({why})"))
}
