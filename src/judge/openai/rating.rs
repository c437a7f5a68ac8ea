//! The prompt template that asks for the rating of a single response.

use std::path::Path;

use minijinja::context;

use super::super::placeholders::{TextTemplate, unrendered};
use crate::digest::Digester;
use crate::error::{Error, Result};
use crate::files;
use crate::judge::Rated;

const BUILTIN: &str = include_str!("../templates/rating.txt");

/// A Jinja template; the rendered text ends where the judge answers with a whole number from 1 (bad) to 10 (good).
///
/// Its placeholders are `{{ prompt }}`, `{{ response }}` and, optionally, `{{ instruction }}`.
#[derive(Clone, Debug)]
pub struct RatingTemplate(TextTemplate);

impl RatingTemplate {
    /// The built-in template, for helpful responses.
    pub fn builtin() -> RatingTemplate {
        RatingTemplate::new(BUILTIN).expect("the crate's own template is good")
    }

    /// Parses a template from a string.
    ///
    /// # Errors
    /// [`Error::Config`] if it does not parse, lacks a placeholder or uses an unknown one.
    pub fn from_text(source: &str) -> Result<RatingTemplate> {
        RatingTemplate::new(source).map_err(|why| Error::config("judge-rating-template", why))
    }

    /// Reads a template from a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] if it does not parse, lacks a placeholder or uses an unknown one.
    pub fn from_file(path: &Path) -> Result<RatingTemplate> {
        let source = files::read_text(path)?;
        RatingTemplate::new(&source).map_err(|why| Error::file(path, why))
    }

    fn new(source: &str) -> Result<RatingTemplate, String> {
        TextTemplate::new(source.trim_end(), &["prompt", "response"], &["instruction"]).map(RatingTemplate)
    }

    /// Sets the value of `instruction`.
    ///
    /// # Errors
    /// [`Error::Config`] if the template does not use it.
    pub fn with_instruction(self, instruction: &str) -> Result<RatingTemplate> {
        let text = self.0.with_instruction(instruction);
        text.map(RatingTemplate).map_err(|why| Error::config("judge-rating-template", why))
    }

    /// A digest of its source and its instruction.
    pub(super) fn identity(&self) -> String {
        let mut digester = Digester::default();
        digester.bytes(self.0.source().as_bytes());
        digester.bytes(self.0.instruction().as_bytes());
        digester.finish().to_string()
    }

    /// Renders the prompt for the judge.
    ///
    /// # Errors
    /// [`Error::Config`] if the template fails.
    pub fn render(&self, rated: &Rated<'_>) -> Result<String> {
        let Rated { prompt, response } = *rated;
        self.0.render(context! { prompt, response }).map_err(unrendered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rating_template_shows_one_response() {
        let template = RatingTemplate::builtin().with_instruction("Prefer rhymes.").unwrap();
        let text = template.render(&Rated { prompt: " why?", response: "{{ prompt }} " }).unwrap();
        assert!(text.contains("\nPrefer rhymes.\n\n"), "{text}");
        assert!(text.ends_with("\n\nContext - why?\n\nResponse - {{ prompt }}\n\nRating="), "{text}");
        assert_ne!(template.identity(), RatingTemplate::builtin().identity());
        let error = RatingTemplate::from_text("{{ prompt }}").unwrap_err().to_string();
        assert!(error.starts_with("judge-rating-template: has no {{ response }}"), "{error}");
    }
}
