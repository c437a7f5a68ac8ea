//! The sections of a report: text, charts, tables and samples.

use super::bars::Bars;
use super::plot::Plot;
use super::scale::{Estimate, Unit, number};
use super::svg::{escape, prose};

/// Prompts longer than this many characters are folded.
const LONG_PROMPT: usize = 320;
/// If there are more samples than the second number, only as many as the first number are shown; the others are folded.
const UNFOLDED: (usize, usize) = (6, 8);
/// The ends of a scale in a table, in pixels, within a width of 120.
const SCALE: (f64, f64) = (4.0, 116.0);

/// A titled part of a report. Empty blocks are left out, and so is a section without other blocks.
#[derive(Clone, Debug, Default)]
pub struct Section {
    title: String,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
enum Block {
    Text(String),
    /// Charts side by side if there is room.
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

    /// Adds a plot, next to the charts before it.
    pub fn plot(self, plot: Plot) -> Section {
        if plot.is_empty() { self } else { self.drawing(Figure::Plot(plot)) }
    }

    /// Adds bars, next to the charts before them.
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

    /// Adds a prompt with its responses.
    pub fn sample(mut self, sample: Sample) -> Section {
        match self.blocks.last_mut() {
            Some(Block::Samples(samples)) => samples.push(sample),
            _ => self.blocks.push(Block::Samples(vec![sample])),
        }
        self
    }

    /// Whether the section has no content other than text.
    pub fn is_empty(&self) -> bool {
        self.blocks.iter().all(|block| matches!(block, Block::Text(_)))
    }

    pub(super) fn html(&self) -> String {
        let mut out = format!("<section>\n<h2>{}</h2>\n", escape(&self.title));
        for block in &self.blocks {
            match block {
                Block::Text(text) => out += &format!("<p>{}</p>\n", prose(text)),
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
                Block::Samples(samples) => {
                    let shown = if samples.len() > UNFOLDED.1 { UNFOLDED.0 } else { samples.len() };
                    let (shown, folded) = samples.split_at(shown);
                    out.extend(shown.iter().map(Sample::html));
                    if !folded.is_empty() {
                        out += &format!("<details class=\"more\"><summary>{} more</summary>\n", folded.len());
                        out.extend(folded.iter().map(Sample::html));
                        out += "</details>\n";
                    }
                }
            }
        }
        out + "</section>\n"
    }
}

/// A table. Estimates are written with their intervals, and shares are also drawn on a scale from 0 to 100 %.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// A cell of a [`Table`]; made from texts, numbers and estimates by `into()`.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A text.
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
    /// A table with these columns and no rows.
    pub fn new(columns: impl IntoIterator<Item = impl Into<String>>) -> Table {
        Table { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row, with one cell per column.
    pub fn row(mut self, cells: impl IntoIterator<Item = Cell>) -> Table {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "one cell per column");
        self.rows.push(cells);
        self
    }

    fn html(&self) -> String {
        let drawn = |column: usize| self.rows.iter().any(|row| row[column].is_drawn());
        let class = |column: usize| {
            let text = |row: &Vec<Cell>| matches!(row[column], Cell::Text(_));
            if self.rows.iter().all(text) { "" } else { " class=\"number\"" }
        };
        let mut out = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
        for (i, name) in self.columns.iter().enumerate() {
            let scale = if drawn(i) { scale_header() } else { String::new() };
            out += &format!("<th{}>{}{scale}</th>", class(i), prose(name));
        }
        out += "</tr></thead>\n<tbody>\n";
        for row in &self.rows {
            out += "<tr>";
            for (i, cell) in row.iter().enumerate() {
                out += &format!("<td{}>{}</td>", class(i), cell.html(drawn(i)));
            }
            out += "</tr>\n";
        }
        out + "</tbody></table></div>\n"
    }
}

/// The x coordinate of a share on a scale.
fn place(share: f64) -> f64 {
    SCALE.0 + share.clamp(0.0, 1.0) * (SCALE.1 - SCALE.0)
}

/// A drawing in a cell of a table.
fn inline(content: &str) -> String {
    format!(" <svg class=\"plot inline\" viewBox=\"0 0 120 12\" aria-hidden=\"true\">{content}</svg>")
}

/// The labels of a scale from 0 to 100 %.
fn scale_header() -> String {
    let label = |(share, anchor, text): (f64, &str, &str)| {
        let x = place(share);
        format!("<text x=\"{x:.1}\" y=\"10\" text-anchor=\"{anchor}\">{text}</text>")
    };
    inline(&[(0.0, "start", "0"), (1.0, "end", "100\u{a0}%")].map(label).concat())
}

impl Cell {
    /// Whether it is a share with an interval.
    fn is_drawn(&self) -> bool {
        matches!(self, Cell::Estimate(estimate, Unit::Share) if estimate.has_interval())
    }

    /// `drawn`: whether the column has a scale.
    fn html(&self, drawn: bool) -> String {
        match self {
            Cell::Text(text) => prose(text),
            Cell::Number(value) => number(*value),
            Cell::Estimate(e, unit) => {
                let mut text = prose(&unit.format(e.value));
                if e.has_interval() {
                    text += &format!(" <small>({})</small>", prose(&e.interval(*unit)));
                }
                if drawn && self.is_drawn() {
                    let ticks: String = [0.0, 0.5, 1.0].map(|t| format!("M{:.1} 1v10", place(t))).concat();
                    let (low, at, high) = (place(e.low), place(e.value), place(e.high));
                    text += &inline(&format!(
                        "<path class=\"axis\" d=\"{ticks}\"/><path class=\"curve s0\" d=\"M{low:.1} 6L{high:.1} 6\"/>\
                         <path class=\"mark s0\" d=\"M{at:.1} 6h0\"/>"
                    ));
                } else if drawn {
                    text += &inline("");
                }
                text
            }
        }
    }
}

/// A prompt and responses to it, side by side.
#[derive(Clone, Debug)]
pub struct Sample {
    label: String,
    prompt: String,
    responses: Vec<Response>,
    note: String,
}

#[derive(Clone, Debug)]
struct Response {
    label: String,
    text: String,
    preferred: bool,
}

impl Sample {
    /// A prompt without responses.
    pub fn new(prompt: impl Into<String>) -> Sample {
        Sample { label: String::new(), prompt: prompt.into(), responses: Vec::new(), note: String::new() }
    }

    /// Sets the line above the prompt, such as the step.
    pub fn label(mut self, label: impl Into<String>) -> Sample {
        self.label = label.into();
        self
    }

    /// Adds a response under this label.
    pub fn response(self, label: impl Into<String>, text: impl Into<String>) -> Sample {
        self.with(label, text, false)
    }

    /// Adds the response that was preferred.
    pub fn preferred(self, label: impl Into<String>, text: impl Into<String>) -> Sample {
        self.with(label, text, true)
    }

    fn with(mut self, label: impl Into<String>, text: impl Into<String>, preferred: bool) -> Sample {
        self.responses.push(Response { label: label.into(), text: text.into(), preferred });
        self
    }

    /// Sets the line below the responses, such as the probabilities of the verdict.
    pub fn note(mut self, note: impl Into<String>) -> Sample {
        self.note = note.into();
        self
    }

    fn html(&self) -> String {
        let mut out = String::from("<article>\n");
        if !self.label.is_empty() {
            out += &format!("<p class=\"over\">{}</p>\n", prose(&self.label));
        }
        // A long prompt is folded, since it would push its responses off the screen.
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
        out += "<div class=\"responses\">\n";
        for response in &self.responses {
            let (class, mark) = match response.preferred {
                true => (" class=\"preferred\"", " <b>✓ preferred</b>"),
                false => ("", ""),
            };
            let (label, text) = (prose(&response.label), escape(&response.text));
            let text = if text.trim().is_empty() { "<i>(empty)</i>" } else { text.trim() };
            out +=
                &format!("<div{class}><p class=\"over\">{label}{mark}</p><p dir=\"auto\">{text}</p></div>\n");
        }
        out += "</div>\n";
        if !self.note.is_empty() {
            out += &format!("<p class=\"note\">{}</p>\n", prose(&self.note));
        }
        out + "</article>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    #[test]
    fn empty_blocks_and_sections_are_left_out() {
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
    fn consecutive_charts_share_a_grid() {
        let plot = || Plot::new("t").series(Series::line("a", [(0.0, 1.0)]));
        let html = Section::new("t").plot(plot()).plot(plot()).text("between").plot(plot()).html();
        assert_eq!((html.matches("class=\"figures\"").count(), html.matches("<figure>").count()), (2, 3));
    }

    #[test]
    fn a_table_draws_shares_on_a_scale_with_ticks() {
        let wide = (Estimate::new(0.5, 0.25, 0.75), Unit::Share);
        let narrow = (Estimate::new(0.5, 0.375, 0.625), Unit::Share);
        let table = Table::new(["loss", "wins", "steps"])
            .row(["<DPO>".into(), wide.into(), 1000.0.into()])
            .row(["IPO".into(), narrow.into(), f64::NAN.into()]);
        let html = table.html();
        assert!(html.contains("50.0\u{a0}% <small>(25.0 to 75.0\u{a0}%)</small>"), "{html}");
        assert!(html.contains("M32.0 6L88.0 6") && html.contains("M46.0 6L74.0 6"), "{html}");
        assert_eq!(html.matches("M4.0 1v10M60.0 1v10M116.0 1v10").count(), 2, "{html}");
        assert!(
            html.contains("text-anchor=\"end\">100\u{a0}%</text>") && html.contains("<th>loss</th>"),
            "{html}"
        );
        let plain = Table::new(["KL"]).row([(Estimate::new(2.0, 1.0, 3.0), Unit::Plain).into()]).html();
        assert!(plain.contains("2 <small>(1 to 3)</small>") && !plain.contains("<svg"), "{plain}");
        assert!(
            html.contains("&lt;DPO&gt;") && html.contains(">1,000</td>") && html.contains(">–</td>"),
            "{html}"
        );
    }

    #[test]
    fn a_sample_escapes_its_texts_and_folds_a_long_prompt() {
        let sample = |prompt: &str| {
            Sample::new(prompt)
                .label("<i>")
                .response("<a>", "<script>")
                .preferred("b", " ")
                .note("<u>")
                .html()
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

    #[test]
    fn many_samples_are_folded() {
        let html = |count: usize| {
            (0..count).fold(Section::new("t"), |section, _| section.sample(Sample::new("p"))).html()
        };
        assert!(!html(8).contains("<details") && html(9).contains("<summary>3 more</summary>"));
        assert_eq!(html(20).matches("<article>").count(), 20);
    }
}
