//! The page: what stands at its head, its sections, the configuration at its end.

use std::path::Path;

use serde_json::Value;

use super::section::Section;
use super::svg::{STYLE, escape};
use crate::error::{Result, size};
use crate::files;

/// What of a configuration is in bytes.
const MEMORY: &str = "memory.";
const PAGE_STYLE: &str = include_str!("page.css");

/// A report in the making. See the [module](crate::report).
#[derive(Clone, Debug, Default)]
pub struct Report {
    title: String,
    lead: String,
    warnings: Vec<String>,
    facts: Vec<(String, String)>,
    figures: Vec<KeyFigure>,
    sections: Vec<Section>,
    configuration: Value,
}

/// A number that a reader should not miss.
#[derive(Clone, Debug)]
pub struct KeyFigure {
    label: String,
    value: String,
    note: String,
}

impl KeyFigure {
    /// A figure, written as its reader shall see it.
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> KeyFigure {
        KeyFigure { label: label.into(), value: value.into(), note: String::new() }
    }

    /// What stands below it: its interval, or where it came from.
    pub fn note(mut self, note: impl Into<String>) -> KeyFigure {
        self.note = note.into();
        self
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

    /// Sets the sentence under the title.
    pub fn lead(&mut self, lead: impl Into<String>) -> &mut Report {
        self.lead = lead.into();
        self
    }

    /// Adds something that the reader must know, at the head.
    pub fn warning(&mut self, text: impl Into<String>) -> &mut Report {
        self.warnings.push(text.into());
        self
    }

    /// Adds one of the facts at the head: what was run, on what.
    pub fn fact(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Report {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// Adds a key figure, after the others.
    pub fn figure(&mut self, figure: KeyFigure) -> &mut Report {
        self.figures.push(figure);
        self
    }

    /// Adds a key figure before the others.
    pub fn figure_first(&mut self, figure: KeyFigure) -> &mut Report {
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

    /// Sets the configuration, an object, which stands folded at the end.
    pub fn configuration(&mut self, configuration: Value) -> &mut Report {
        self.configuration = configuration;
        self
    }

    /// The page.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{title}</title>\n<style>\n{PAGE_STYLE}{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
        );
        if !self.lead.is_empty() {
            out += &format!("<p class=\"lead\">{}</p>\n", escape(&self.lead));
        }
        for warning in &self.warnings {
            out += &format!("<p class=\"warning\">{}</p>\n", escape(warning));
        }
        if !self.figures.is_empty() {
            out += "<ul class=\"figures-key\">\n";
            for KeyFigure { label, value, note } in &self.figures {
                let [label, value, note] = [label, value, note].map(|text| escape(text));
                out +=
                    &format!("<li><span>{label}</span><strong>{value}</strong><small>{note}</small></li>\n");
            }
            out += "</ul>\n";
        }
        if !self.facts.is_empty() {
            out += "<dl>\n";
            for (name, value) in &self.facts {
                out += &format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value));
            }
            out += "</dl>\n";
        }
        out += "</header>\n<main>\n";
        out.extend(self.sections.iter().map(Section::html));
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

    /// Writes the page to `path`, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_atomic(path, self.html().as_bytes())
    }
}

/// An object's values with their keys; of objects within it, "outer.inner".
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
    fn a_page_holds_all_it_needs_and_no_script() {
        let attack = "<script src=\"http://x/\"></script><img src=x onerror=alert(1)>";
        let mut report = Report::new(attack);
        report.lead(attack).warning(attack).fact(attack, attack);
        report.figure(KeyFigure::new(attack, attack).note(attack));
        report.add(Section::new(attack).text(attack).sample(Sample::new(attack).answer(attack, attack)));
        report.configuration(json!({attack: attack, "inner": {attack: [attack]}}));
        let html = report.html();
        for markup in ["<script", "<img", "<link", "src=\"", "href=", "@import", "url("] {
            assert!(!html.contains(markup), "{markup}");
        }
        assert!(html.contains("<tr><th>inner.&lt;script"), "{html}");
    }

    #[test]
    fn what_is_put_first_stands_first() {
        let section = |title: &str| Section::new(title).sample(Sample::new("x"));
        let mut report = Report::new("t");
        report.add(section("two")).add(section("three")).add_first(section("one")).add(Section::new("none"));
        report.figure(KeyFigure::new("later", "2")).figure_first(KeyFigure::new("sooner", "1"));
        let html = report.html();
        let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text}"));
        let expected = ["sooner<", "later<", "<h2>one<", "<h2>two<", "<h2>three<"].map(at);
        assert!(expected.is_sorted() && !html.contains("<h2>none"), "{expected:?}");
    }
}
