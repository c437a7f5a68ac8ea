//! Templates with placeholders, for both judges that are language models: bounded in steps, memory, recursion and time.

use std::collections::HashSet;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Value, context};

use super::names;
use crate::data::chat::bounds;
use crate::error::{Error, Result};

const NAME: &str = "judge";

/// A Jinja template in whose placeholders texts are put as they are: Jinja in them means nothing. Lines that hold
/// nothing but a `{% … %}` leave no trace.
#[derive(Clone, Debug)]
pub(super) struct TextTemplate {
    environment: Arc<Environment<'static>>,
    /// The variables that it uses.
    used: HashSet<String>,
    instruction: String,
}

impl TextTemplate {
    /// The template `source`, which must use `required`, and can use `optional` besides. The error continues a name of
    /// the template.
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
        // Filters and the like are looked up only now. A template may want a number.
        let tried = ["x", "1"]
            .map(|word| template.render(known.iter().map(|name| (*name, Value::from(word))).collect()));
        match tried {
            [Err(why), Err(_)] => Err(broken(why)),
            _ => Ok(template),
        }
    }

    /// Puts `instruction` into the template. The error says that there is no place for it.
    pub(super) fn with_instruction(self, instruction: &str) -> Result<TextTemplate, String> {
        if !self.used.contains("instruction") {
            let why = "has no {{ instruction }}, but one is given: put the placeholder in or leave it out";
            return Err(why.to_owned());
        }
        Ok(TextTemplate { instruction: instruction.to_owned(), ..self })
    }

    /// How it is written.
    pub(super) fn source(&self) -> String {
        self.environment.get_template(NAME).expect("added in new").source().to_owned()
    }

    /// What the user asks of the judge; empty for nothing in particular.
    pub(super) fn instruction(&self) -> &str {
        &self.instruction
    }

    /// The template with these variables and its instruction. The error says what it refuses.
    pub(super) fn render(&self, variables: Value) -> Result<String, String> {
        let instruction = &self.instruction;
        bounds::render(&self.environment, NAME, context! { instruction, ..variables })
    }
}

/// An error about one pair, which ends no run.
pub(super) fn unrendered(why: String) -> Error {
    Error::config("judge-template", format!("cannot render this pair ({why})"))
}
