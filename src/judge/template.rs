//! Prompt templates for judge models: the structure of the paper's prompts, in our own words.

use std::path::Path;

use minijinja::context;

use super::placeholders::{TextTemplate, unrendered};
use super::{Pair, names};
use crate::digest::Digester;
use crate::error::{Error, Result};
use crate::files;

/// Names and sources of the built-in templates.
const BUILTIN: [(&str, &str); 5] = [
    ("summarisation", include_str!("templates/summarisation.txt")),
    ("helpfulness", include_str!("templates/helpfulness.txt")),
    ("helpfulness-short", include_str!("templates/helpfulness-short.txt")),
    ("helpfulness-very-short", include_str!("templates/helpfulness-very-short.txt")),
    ("harmlessness", include_str!("templates/harmlessness.txt")),
];

/// The variables that a template must use, and those that it may use.
const REQUIRED: [&str; 3] = ["prompt", "response_1", "response_2"];
const OPTIONAL: [&str; 2] = ["instruction", "training"];

/// A Jinja template; the rendered text ends where the judge answers "1" or "2".
///
/// Its placeholders are `{{ prompt }}`, `{{ response_1 }}`, `{{ response_2 }}` and, optionally, `{{ instruction }}`
/// (the user's, or empty) and `{% if training %}` around text that is only for a judge that gives feedback in training,
/// not for one that evaluates. Values are inserted verbatim: Jinja syntax in them has no effect.
#[derive(Clone, Debug)]
pub struct JudgeTemplate {
    text: TextTemplate,
    training: bool,
}

impl JudgeTemplate {
    /// A built-in template: `summarisation`, `helpfulness`, `helpfulness-short`, `helpfulness-very-short` or
    /// `harmlessness` (the *less* harmful response is preferred). Any other name is [`Error::Config`].
    pub fn builtin(name: &str) -> Result<JudgeTemplate> {
        let Some((_, source)) = BUILTIN.iter().find(|(known, _)| *known == name) else {
            let known = BUILTIN.map(|(known, _)| known);
            let (hint, known) = (names::did_you_mean(name, &known), known.join(", "));
            let why = format!("{name:?} is not a built-in template{hint}: give a file, or one of {known}");
            return Err(Error::config("judge-template", why));
        };
        JudgeTemplate::new(source).map_err(|why| Error::config("judge-template", format!("{name} {why}")))
    }

    /// Reads a template from a file. A template that does not parse, lacks a placeholder or uses an unknown one is
    /// [`Error::File`].
    pub fn from_file(path: &Path) -> Result<JudgeTemplate> {
        let source = files::read_text(path)?;
        JudgeTemplate::new(&source).map_err(|why| Error::file(path, why))
    }

    /// Parses a template from a string. A template that does not parse, lacks a placeholder or uses an unknown one is
    /// [`Error::Config`].
    pub fn from_text(source: &str) -> Result<JudgeTemplate> {
        JudgeTemplate::new(source).map_err(|why| Error::config("judge-template", why))
    }

    fn new(source: &str) -> Result<JudgeTemplate, String> {
        // The next token is the answer, so trailing white space is removed.
        let text = TextTemplate::new(source.trim_end(), &REQUIRED, &OPTIONAL)?;
        Ok(JudgeTemplate { text, training: true })
    }

    /// Sets whether the judge gives feedback in training (the default) or evaluates.
    pub fn with_training(self, training: bool) -> JudgeTemplate {
        JudgeTemplate { training, ..self }
    }

    /// Sets the value of `instruction`. [`Error::Config`] if the template does not use it.
    pub fn with_instruction(self, instruction: &str) -> Result<JudgeTemplate> {
        let text = self.text.with_instruction(instruction);
        Ok(JudgeTemplate { text: text.map_err(|why| Error::config("judge-template", why))?, ..self })
    }

    /// A digest of the source, and the instruction.
    pub(super) fn identity(&self) -> [String; 2] {
        let mut digester = Digester::default();
        digester.bytes(self.text.source().as_bytes());
        digester.bytes(&[u8::from(self.training)]);
        [digester.finish().to_string(), self.text.instruction().to_owned()]
    }

    /// Renders the prompt for the judge. A failure of the template is [`Error::Config`].
    pub fn render(&self, pair: &Pair<'_>) -> Result<String> {
        let Pair { prompt, response_1, response_2 } = *pair;
        let training = self.training;
        self.text.render(context! { prompt, response_1, response_2, training }).map_err(unrendered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair<'static> =
        Pair { prompt: " a question\n", response_1: " first answer", response_2: "second answer " };

    fn all() -> impl Iterator<Item = (&'static str, JudgeTemplate)> {
        BUILTIN.iter().map(|&(name, _)| (name, JudgeTemplate::builtin(name).unwrap()))
    }

    #[test]
    fn every_template_has_the_papers_structure_and_ends_where_the_answer_begins() {
        for (name, template) in all() {
            let (context, answer) =
                if name == "summarisation" { ("Text", "Summary") } else { ("Context", "Response") };
            let expected = format!(
                "\n\n{context} - a question\n\n{answer} 1 - first answer\n\n{answer} 2 - second answer\n\nPreferred {answer}="
            );
            let text = template.render(&PAIR).unwrap();
            assert!(text.ends_with(&expected), "{name}: {text}");
            assert!(text.len() > expected.len() + 200, "{name} has no preamble");
            assert!(!text.contains("\n\n\n") && !text.starts_with(char::is_whitespace), "{name}: {text}");
        }
    }

    #[test]
    fn the_text_about_the_users_turns_is_left_out_in_evaluation() {
        for (name, template) in all() {
            let training = template.render(&PAIR).unwrap();
            let evaluation = template.with_training(false).render(&PAIR).unwrap();
            let dialogue = name != "summarisation";
            assert_eq!(training.contains("user's turn"), dialogue, "{name}: {training}");
            assert!(!evaluation.contains("user's turn"), "{name}: {evaluation}");
            assert!(!evaluation.contains("\n\n\n"), "{name}: {evaluation}");
        }
    }

    #[test]
    fn jinja_and_html_in_a_text_stay_as_they_are() {
        let odd = "{{ prompt }} {% if x %} {# no #} <b> & \"é\" {{ response_2 }}";
        for (name, template) in all() {
            let pair = Pair { prompt: odd, response_1: odd, response_2: "{{" };
            let text = template.render(&pair).unwrap();
            assert_eq!(text.matches(odd).count(), 2, "{name}: {text}");
            assert!(text.contains(" 2 - {{\n"), "{name}: {text}");
        }
    }

    #[test]
    fn an_instruction_is_shown_to_the_judge() {
        for (name, template) in all() {
            let text = template.with_instruction("Prefer rhymes.").unwrap().render(&PAIR).unwrap();
            assert_eq!(text.matches("\nPrefer rhymes.\n\n").count(), 1, "{name}: {text}");
        }
        let template = JudgeTemplate::new("{{ prompt }}{{ response_1 }}{{ response_2 }}").unwrap();
        let error = template.with_instruction("Prefer rhymes.").unwrap_err().to_string();
        assert!(error.contains("has no {{ instruction }}"), "{error}");
    }

    #[test]
    fn a_template_can_be_read_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("judge.txt");
        let load = |source: &[u8]| {
            files::write_atomic(&path, source).unwrap();
            JudgeTemplate::from_file(&path)
        };
        let template = load(b"Q {{ prompt }}\n1 {{ response_1 }}\n2 {{response_2}}\n=\n\n").unwrap();
        assert_eq!(template.render(&PAIR).unwrap(), "Q  a question\n\n1  first answer\n2 second answer \n=");

        let error = |source: &[u8]| load(source).unwrap_err().to_string();
        for missing in REQUIRED {
            let source = REQUIRED.into_iter().filter(|n| *n != missing).map(|n| format!("{{{{ {n} }}}}"));
            let error = error(source.collect::<String>().as_bytes());
            assert!(error.contains(&format!("judge.txt: has no {{{{ {missing} }}}}")), "{error}");
        }
        let typing = error(b"{{ prompt }}{{ response_1 }}{{ response_2 }}{{ instrution }}");
        assert!(typing.contains("did you mean \"instruction\"?"), "{typing}");
        assert!(error(b"{% if %}").contains("is not a valid template"));
        assert!(
            error(b"{{ prompt|no }}{{ response_1 }}{{ response_2 }}").contains("is not a valid template")
        );
        assert!(error(b"\xff").contains("is not UTF-8"));
        assert!(JudgeTemplate::from_file(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn a_template_that_loops_for_ever_is_stopped() {
        let texts = "{{ prompt }}{{ response_1 }}{{ response_2 }}";
        for source in [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns }}",
            "{{ 'x' * 10**9 }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        ] {
            let error = JudgeTemplate::from_text(&format!("{texts}{source}")).unwrap_err().to_string();
            assert!(error.contains("is not a valid template"), "{error}");
        }
        let minuses = format!("{texts}{{{{ {}1 }}}}", "-".repeat(24_000));
        let error = JudgeTemplate::from_text(&minuses).unwrap_err().to_string();
        assert!(error.contains("more than 1000 tokens"), "{error}");
    }

    #[test]
    fn a_template_that_accepts_only_numbers_is_valid() {
        let template = "{{ prompt | int }}{{ response_1 }}{{ response_2 }}";
        let template = JudgeTemplate::from_text(template).unwrap();
        assert_eq!(template.render(&Pair { prompt: "41", ..PAIR }).unwrap(), "41 first answersecond answer ");
        assert!(matches!(template.render(&PAIR), Err(Error::Config { .. })));
    }

    #[test]
    fn an_unknown_name_gets_the_known_ones() {
        let error = JudgeTemplate::builtin("summarization").unwrap_err().to_string();
        assert!(error.contains("did you mean \"summarisation\"?"), "{error}");
        assert!(BUILTIN.iter().all(|(name, _)| error.contains(name)), "{error}");
    }
}
