//! What a section of a report holds: text, figures, tables, samples.

use super::bars::Bars;
use super::plot::Plot;
use super::scale::{Axis, Estimate, Unit, number};
use super::svg::escape;

/// Prompts longer than this many characters are folded.
const LONG_PROMPT: usize = 320;

/// A titled part of a report. What is empty is left out, and so is a section of nothing else.
#[derive(Clone, Debug, Default)]
pub struct Section {
    title: String,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
enum Block {
    Text(String),
    /// Drawings side by side, as far as there is room.
    Figures(Vec<Figure>),
    Table(Table),
    Samples(Vec<Sample>),
}

#[derive(Clone, Debug)]
enum Figure {
    Plot(Plot),
    Bars(Bars),
}

impl Section {
    /// A section without content.
    pub fn new(title: impl Into<String>) -> Section {
        Section { title: title.into(), blocks: Vec::new() }
    }

    /// Adds a paragraph.
    pub fn text(mut self, text: impl Into<String>) -> Section {
        let text = text.into();
        if !text.is_empty() {
            self.blocks.push(Block::Text(text));
        }
        self
    }

    /// Adds a plot, beside the drawings before it.
    pub fn plot(self, plot: Plot) -> Section {
        if plot.is_empty() { self } else { self.drawing(Figure::Plot(plot)) }
    }

    /// Adds bars, beside the drawings before them.
    pub fn bars(self, bars: Bars) -> Section {
        if bars.is_empty() { self } else { self.drawing(Figure::Bars(bars)) }
    }

    fn drawing(mut self, figure: Figure) -> Section {
        match self.blocks.last_mut() {
            Some(Block::Figures(figures)) => figures.push(figure),
            _ => self.blocks.push(Block::Figures(vec![figure])),
        }
        self
    }

    /// Adds a table.
    pub fn table(mut self, table: Table) -> Section {
        if !table.rows.is_empty() {
            self.blocks.push(Block::Table(table));
        }
        self
    }

    /// Adds a prompt with its answers.
    pub fn sample(mut self, sample: Sample) -> Section {
        match self.blocks.last_mut() {
            Some(Block::Samples(samples)) => samples.push(sample),
            _ => self.blocks.push(Block::Samples(vec![sample])),
        }
        self
    }

    /// Whether there is nothing but text, if that.
    pub fn is_empty(&self) -> bool {
        self.blocks.iter().all(|block| matches!(block, Block::Text(_)))
    }

    pub(super) fn html(&self) -> String {
        let mut out = format!("<section>\n<h2>{}</h2>\n", escape(&self.title));
        for block in &self.blocks {
            match block {
                Block::Text(text) => out += &format!("<p>{}</p>\n", escape(text)),
                Block::Figures(figures) => {
                    out += "<div class=\"figures\">\n";
                    for figure in figures {
                        let svg = match figure {
                            Figure::Plot(plot) => plot.draw(false),
                            Figure::Bars(bars) => bars.draw(false),
                        };
                        out += &format!("<figure>{svg}</figure>\n");
                    }
                    out += "</div>\n";
                }
                Block::Table(table) => out += &table.html(),
                Block::Samples(samples) => out.extend(samples.iter().map(Sample::html)),
            }
        }
        out + "</section>\n"
    }
}

/// A table. Estimates are written with their intervals and drawn, on one scale a column.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// A cell of a [`Table`]; made from texts, numbers and estimates by `into()`.
#[derive(Clone, Debug)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number, with three significant digits.
    Number(f64),
    /// A value and its interval.
    Estimate(Estimate, Unit),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Cell {
        Cell::Number(value)
    }
}

impl From<(Estimate, Unit)> for Cell {
    fn from((estimate, unit): (Estimate, Unit)) -> Cell {
        Cell::Estimate(estimate, unit)
    }
}

impl Table {
    /// A table with these columns and no row yet.
    pub fn new(columns: impl IntoIterator<Item = impl Into<String>>) -> Table {
        Table { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row, a cell a column.
    pub fn row(mut self, cells: impl IntoIterator<Item = Cell>) -> Table {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "a cell a column");
        self.rows.push(cells);
        self
    }

    fn html(&self) -> String {
        let scales: Vec<Option<Axis>> = (0..self.columns.len()).map(|column| self.scale(column)).collect();
        let class = |column: usize| {
            let text = |row: &Vec<Cell>| matches!(row[column], Cell::Text(_));
            match self.rows.iter().all(text) {
                true => "",
                false if scales[column].is_some() => " class=\"number drawn\"",
                false => " class=\"number\"",
            }
        };
        let mut out = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
        for (i, name) in self.columns.iter().enumerate() {
            out += &format!("<th{}>{}</th>", class(i), escape(name));
        }
        out += "</tr></thead>\n<tbody>\n";
        for row in &self.rows {
            out += "<tr>";
            for (i, cell) in row.iter().enumerate() {
                out += &format!("<td{}>{}</td>", class(i), cell.html(scales[i].as_ref()));
            }
            out += "</tr>\n";
        }
        out + "</tbody></table></div>\n"
    }

    /// What the column's intervals are drawn on.
    fn scale(&self, column: usize) -> Option<Axis> {
        let ends = self.rows.iter().filter_map(|row| match &row[column] {
            Cell::Estimate(e, _) if e.has_interval() => Some([e.low, e.high, e.value]),
            _ => None,
        });
        Axis::fit(ends.flatten(), 4, Unit::Plain)
    }
}

impl Cell {
    fn html(&self, scale: Option<&Axis>) -> String {
        match self {
            Cell::Text(text) => escape(text),
            Cell::Number(value) => number(*value),
            Cell::Estimate(e, unit) => {
                let value = unit.format(e.value);
                let Some(scale) = scale.filter(|_| e.has_interval()) else { return value };
                let place = |value| scale.place(value, 4.0, 76.0);
                let (low, at, high) = (place(e.low), place(e.value), place(e.high));
                // The unit stands once.
                let low_text = unit.format(e.low).trim_end_matches(" %").to_owned();
                format!(
                    "{value} <small>({low_text} to {})</small> <svg class=\"plot inline\" viewBox=\"0 0 80 12\" \
                     aria-hidden=\"true\"><path class=\"curve s0\" d=\"M{low:.1} 6L{high:.1} 6\"/><path \
                     class=\"mark s0\" d=\"M{at:.1} 6h0\"/></svg>",
                    unit.format(e.high)
                )
            }
        }
    }
}

/// A prompt and answers to it, side by side.
#[derive(Clone, Debug)]
pub struct Sample {
    label: String,
    prompt: String,
    answers: Vec<Answer>,
    note: String,
}

#[derive(Clone, Debug)]
struct Answer {
    label: String,
    text: String,
    preferred: bool,
}

impl Sample {
    /// A prompt without an answer yet.
    pub fn new(prompt: impl Into<String>) -> Sample {
        Sample { label: String::new(), prompt: prompt.into(), answers: Vec::new(), note: String::new() }
    }

    /// What stands over the prompt, such as the step.
    pub fn label(mut self, label: impl Into<String>) -> Sample {
        self.label = label.into();
        self
    }

    /// Adds an answer under this label.
    pub fn answer(self, label: impl Into<String>, text: impl Into<String>) -> Sample {
        self.with(label, text, false)
    }

    /// Adds an answer that somebody preferred.
    pub fn preferred(self, label: impl Into<String>, text: impl Into<String>) -> Sample {
        self.with(label, text, true)
    }

    fn with(mut self, label: impl Into<String>, text: impl Into<String>, preferred: bool) -> Sample {
        self.answers.push(Answer { label: label.into(), text: text.into(), preferred });
        self
    }

    /// What stands below, such as the verdict's probabilities.
    pub fn note(mut self, note: impl Into<String>) -> Sample {
        self.note = note.into();
        self
    }

    fn html(&self) -> String {
        let mut out = String::from("<article>\n");
        if !self.label.is_empty() {
            out += &format!("<p class=\"over\">{}</p>\n", escape(&self.label));
        }
        // A prompt of pages would hide its answers.
        let prompt = escape(&self.prompt);
        match self.prompt.char_indices().nth(LONG_PROMPT) {
            None => out += &format!("<p class=\"prompt\" dir=\"auto\">{prompt}</p>\n"),
            Some(_) => {
                let start: String = self.prompt.chars().take(LONG_PROMPT / 2).collect();
                let start = escape(start.split_whitespace().collect::<Vec<_>>().join(" ").as_str());
                out += &format!(
                    "<details class=\"prompt\"><summary dir=\"auto\">{start}…</summary><p dir=\"auto\">{prompt}</p>\
                     </details>\n"
                );
            }
        }
        out += "<div class=\"answers\">\n";
        for answer in &self.answers {
            let (class, mark) = match answer.preferred {
                true => (" class=\"preferred\"", " <b>✓ preferred</b>"),
                false => ("", ""),
            };
            let (label, text) = (escape(&answer.label), escape(&answer.text));
            let text = if text.trim().is_empty() { "<i>(empty)</i>" } else { text.trim() };
            out +=
                &format!("<div{class}><p class=\"over\">{label}{mark}</p><p dir=\"auto\">{text}</p></div>\n");
        }
        out += "</div>\n";
        if !self.note.is_empty() {
            out += &format!("<p class=\"note\">{}</p>\n", escape(&self.note));
        }
        out + "</article>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    #[test]
    fn what_is_empty_leaves_no_frame() {
        let empty = Series::line("a", [(0.0, f64::NAN)]);
        let section = Section::new("t")
            .text("words")
            .text("")
            .plot(Plot::new("nothing").series(empty))
            .bars(Bars::new("nothing"))
            .table(Table::new(["nothing"]));
        assert!(section.is_empty());
        assert_eq!(section.html(), "<section>\n<h2>t</h2>\n<p>words</p>\n</section>\n");
    }

    #[test]
    fn drawings_in_a_row_share_a_grid() {
        let plot = || Plot::new("t").series(Series::line("a", [(0.0, 1.0)]));
        let html = Section::new("t").plot(plot()).plot(plot()).text("between").plot(plot()).html();
        assert_eq!((html.matches("class=\"figures\"").count(), html.matches("<figure>").count()), (2, 3));
    }

    #[test]
    fn a_table_writes_and_draws_intervals_on_its_columns_scale() {
        let wide = (Estimate::new(0.5, 0.25, 0.75), Unit::Share);
        let narrow = (Estimate::new(0.5, 0.375, 0.625), Unit::Share);
        let table = Table::new(["loss", "wins", "steps"])
            .row(["<DPO>".into(), wide.into(), 1000.0.into()])
            .row(["IPO".into(), narrow.into(), f64::NAN.into()]);
        let html = table.html();
        assert!(html.contains("50.0 % <small>(25.0 to 75.0 %)</small>"), "{html}");
        assert!(html.contains("M4.0 6L76.0 6") && html.contains("M22.0 6L58.0 6"), "{html}");
        assert!(
            html.contains("<th class=\"number drawn\">wins</th>") && html.contains("<th>loss</th>"),
            "{html}"
        );
        assert!(
            html.contains("&lt;DPO&gt;") && html.contains(">1,000</td>") && html.contains(">–</td>"),
            "{html}"
        );
    }

    #[test]
    fn a_sample_escapes_its_texts_and_folds_a_long_prompt() {
        let sample = |prompt: &str| {
            Sample::new(prompt).label("<i>").answer("<a>", "<script>").preferred("b", " ").note("<u>").html()
        };
        let short = sample("<p onload=x>");
        assert!(
            !short.contains("<script") && !short.contains("<p onload") && !short.contains("<u>"),
            "{short}"
        );
        assert!(
            !short.contains("<details") && short.contains("(empty)") && short.contains("✓ preferred"),
            "{short}"
        );
        let long = sample(&"größer <b>".repeat(60));
        assert!(long.contains("<details") && !long.contains("<b>grö"), "{long}");
    }
}
