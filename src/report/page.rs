//! The page: its head, its sections, and at the end the terms and the configuration.

use std::path::Path;

use serde_json::Value;

use super::section::Section;
use super::svg::{STYLE, escape, prose};
use super::terms;
use crate::error::{Error, Result, size};
use crate::files;

/// The prefix of configuration keys whose values are in bytes.
const MEMORY: &str = "memory.";
/// A tag in the head of every page, by which [`Report::replace`] recognises a report.
const GENERATOR: &str = "<meta name=\"generator\" content=\"oaif\">";
const PAGE_STYLE: &str = include_str!("page.css");

/// A report to which content is added. See the [module](crate::report).
#[derive(Clone, Debug, Default)]
pub struct Report {
    title: String,
    result: String,
    lead: String,
    warnings: Vec<String>,
    facts: Vec<(String, String)>,
    figures: Vec<KeyFigure>,
    sections: Vec<Section>,
    terms: Option<Vec<(String, String)>>,
    configuration: Value,
}

/// A number at the head of the page.
#[derive(Clone, Debug)]
pub struct KeyFigure {
    label: String,
    value: String,
    note: String,
    main: bool,
}

impl KeyFigure {
    /// A figure with its value as text, including the unit.
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> KeyFigure {
        KeyFigure { label: label.into(), value: value.into(), note: String::new(), main: false }
    }

    /// Sets the line below the value: its interval, or the value that it is compared with.
    pub fn note(mut self, note: impl Into<String>) -> KeyFigure {
        self.note = note.into();
        self
    }

    /// Shows the figure in large type, before the other figures.
    pub fn main(mut self) -> KeyFigure {
        self.main = true;
        self
    }

    fn html(&self) -> String {
        let [label, value, note] = [&self.label, &self.value, &self.note].map(|text| prose(text));
        format!("<li><span>{label}</span><strong>{value}</strong><small>{note}</small></li>\n")
    }
}

impl Report {
    /// A report without content.
    pub fn new(title: impl Into<String>) -> Report {
        Report { title: title.into(), ..Report::default() }
    }

    /// Replaces the title.
    pub fn title(&mut self, title: impl Into<String>) -> &mut Report {
        self.title = title.into();
        self
    }

    /// Sets the result: one or two sentences at the top of the page.
    pub fn result(&mut self, result: impl Into<String>) -> &mut Report {
        self.result = result.into();
        self
    }

    /// Sets the sentence below the result, which describes the content of the page.
    pub fn lead(&mut self, lead: impl Into<String>) -> &mut Report {
        self.lead = lead.into();
        self
    }

    /// Adds a warning at the head.
    pub fn warning(&mut self, text: impl Into<String>) -> &mut Report {
        self.warnings.push(text.into());
        self
    }

    /// Adds a fact at the head, such as the model.
    pub fn fact(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Report {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// Adds a key figure, after the others.
    pub fn figure(&mut self, figure: KeyFigure) -> &mut Report {
        self.figures.push(figure);
        self
    }

    /// Adds a key figure before the others. An existing figure with the same label is replaced.
    pub fn figure_first(&mut self, figure: KeyFigure) -> &mut Report {
        self.figures.retain(|other| other.label != figure.label);
        self.figures.insert(0, figure);
        self
    }

    /// Adds a section, unless it is empty.
    pub fn add(&mut self, section: Section) -> &mut Report {
        self.add_at(self.sections.len(), section)
    }

    /// Adds a section before the others, unless it is empty.
    pub fn add_first(&mut self, section: Section) -> &mut Report {
        self.add_at(0, section)
    }

    fn add_at(&mut self, at: usize, section: Section) -> &mut Report {
        if !section.is_empty() {
            self.sections.insert(at, section);
        }
        self
    }

    /// Adds a list to the end of the page, which explains each term of alignment that occurs on it, such as KL.
    pub fn explain_terms(&mut self) -> &mut Report {
        self.terms.get_or_insert_default();
        self
    }

    /// Like [`Report::explain_terms`], and adds an explanation of this term to the list.
    pub fn term(&mut self, name: impl Into<String>, meaning: impl Into<String>) -> &mut Report {
        self.terms.get_or_insert_default().push((name.into(), meaning.into()));
        self
    }

    /// Sets the configuration, an object, which the end of the page shows folded.
    pub fn configuration(&mut self, configuration: Value) -> &mut Report {
        self.configuration = configuration;
        self
    }

    /// The page as HTML.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             {GENERATOR}\n<title>{title}</title>\n<style>\n{PAGE_STYLE}{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
        );
        for (class, text) in [("result", &self.result), ("lead", &self.lead)] {
            if !text.is_empty() {
                out += &format!("<p class=\"{class}\">{}</p>\n", prose(text));
            }
        }
        for warning in &self.warnings {
            out += &format!("<p class=\"warning\">{}</p>\n", prose(warning));
        }
        for (class, main) in [("figures-key main", true), ("figures-key", false)] {
            let mut figures = self.figures.iter().filter(|figure| figure.main == main).peekable();
            if figures.peek().is_some() {
                out += &format!("<ul class=\"{class}\">\n");
                out.extend(figures.map(KeyFigure::html));
                out += "</ul>\n";
            }
        }
        if !self.facts.is_empty() {
            out += "<dl>\n";
            for (name, value) in &self.facts {
                out += &format!("<div><dt>{}</dt><dd>{}</dd></div>\n", prose(name), prose(value));
            }
            out += "</dl>\n";
        }
        out += "</header>\n<main>\n";
        out.extend(self.sections.iter().map(Section::html));
        if let Some(own) = &self.terms {
            out += &terms::section(&out, own);
        }
        let mut rows = Vec::new();
        flatten("", &self.configuration, &mut rows);
        if !rows.is_empty() {
            out += "<details class=\"configuration\"><summary>Configuration</summary>\n<div class=\"scroll\"><table>\n";
            for (key, value) in rows {
                out += &format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(&key), escape(&value));
            }
            out += "</table></div></details>\n";
        }
        out + "</main>\n</body>\n</html>\n"
    }

    /// Writes the page to `path`, atomically.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_atomic(path, self.html().as_bytes())
    }

    /// Writes the page to `path`. An existing report is replaced.
    ///
    /// # Errors
    /// [`Error::File`] for an existing file that is not a report, [`Error::Io`].
    pub fn replace(&self, path: &Path) -> Result<()> {
        if path.exists() {
            let is_page = path.is_file()
                && files::read(path)?.windows(GENERATOR.len()).any(|w| w == GENERATOR.as_bytes());
            if !is_page {
                return Err(Error::file(path, "is not a report of oaif: give another --output"));
            }
        }
        self.write(path)
    }
}

/// Collects the values of an object with their keys; the keys of nested objects are "outer.inner".
fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let Some(map) = value.as_object() else { return };
    for (key, value) in map {
        let key = format!("{prefix}{key}");
        match value {
            Value::Number(bytes) if key.starts_with(MEMORY) => {
                rows.push((key, bytes.as_u64().map_or_else(|| bytes.to_string(), size)));
            }
            Value::Object(_) => flatten(&format!("{key}."), value, rows),
            Value::String(text) => rows.push((key, text.clone())),
            Value::Null => rows.push((key, "–".into())),
            other => rows.push((key, other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::Sample;

    #[test]
    fn a_page_is_self_contained_and_has_no_script() {
        let attack = "<script src=\"http://x/\"></script><img src=x onerror=alert(1)>";
        let mut report = Report::new(attack);
        report.result(attack).lead(attack).warning(attack).fact(attack, attack).term(attack, attack);
        report.figure(KeyFigure::new(attack, attack).note(attack));
        report.add(Section::new(attack).text(attack).sample(Sample::new(attack).response(attack, attack)));
        report.configuration(json!({attack: attack, "inner": {attack: [attack]}}));
        let html = report.html();
        for markup in ["<script", "<img", "<link", "src=\"", "href=", "@import", "url("] {
            assert!(!html.contains(markup), "{markup}");
        }
        assert!(html.contains("<tr><th>inner.&lt;script"), "{html}");
    }

    #[test]
    fn figures_and_sections_that_are_added_first_come_first() {
        let section = |title: &str| Section::new(title).sample(Sample::new("x"));
        let mut report = Report::new("t");
        report.add(section("two")).add(section("three")).add_first(section("one")).add(Section::new("none"));
        report.figure(KeyFigure::new("later", "2")).figure_first(KeyFigure::new("sooner", "1"));
        report.figure(KeyFigure::new("big", "3").main()).figure_first(KeyFigure::new("sooner", "0"));
        report.lead("about the page").result("The result.");
        let html = report.html();
        let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text}"));
        let expected = [
            "The result.",
            "about the page",
            "big<",
            "sooner<",
            "later<",
            "<h2>one<",
            "<h2>two<",
            "<h2>three<",
        ]
        .map(at);
        assert!(expected.is_sorted() && !html.contains("<h2>none"), "{expected:?}");
        assert_eq!(html.matches("sooner<").count(), 1, "a figure of the same label is replaced");
    }

    #[test]
    fn only_an_existing_report_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.html");
        let report = Report::new("t");
        report.replace(&path).unwrap();
        report.replace(&path).unwrap();
        std::fs::write(&path, "<p>mine</p>").unwrap();
        let error = report.replace(&path).unwrap_err().to_string();
        assert!(error.contains("is not a report of oaif"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "<p>mine</p>");
    }
}
