//! Builds an `<svg>` from texts and shapes. Sizes are in pixels at the natural width; a page may scale the drawing.

/// The natural width of every drawing: that of a phone.
pub(super) const WIDTH: f64 = 360.0;
/// The number of colours; further series reuse them.
pub(super) const COLOURS: usize = 6;

/// The styles of drawings, for light and dark mode. A page embeds them once, and each SVG file contains them.
pub(super) const STYLE: &str = include_str!("plot.css");

/// Escapes a text for HTML or XML, in content or in a quoted attribute. Control characters that XML forbids become
/// U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\r' => {}
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Units, which are not separated from the number before them at the end of a line.
const UNITS: [&str; 13] =
    ["%", "nats", "tokens", "words", "characters", "points", "ms", "s", "min", "h", "KiB", "MiB", "GiB"];

/// [`escape`] for sentences of the page, with a no-break space between a number and its unit.
pub(super) fn prose(text: &str) -> String {
    let escaped = escape(text);
    let mut out = String::with_capacity(escaped.len() + 8);
    for (i, word) in escaped.split(' ').enumerate() {
        let after_number = out.ends_with(|c: char| c.is_ascii_digit());
        let unit = word.trim_end_matches(['.', ',', ';', ':', ')']);
        if i > 0 {
            out.push(if after_number && UNITS.contains(&unit) { '\u{a0}' } else { ' ' });
        }
        out += word;
    }
    out
}

/// The approximate width of a text. Since fonts differ, it is an upper estimate.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let wide = |c: char| if c as u32 >= 0x2e80 { 1.0 } else { 0.57 };
    text.chars().map(wide).sum::<f64>() * size
}

/// The text, shortened to at most `width`.
pub(super) fn cut(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        if text_width(&out, size) + text_width(&format!("{c}…"), size) > width {
            break;
        }
        out.push(c);
    }
    out.trim_end().to_owned() + "…"
}

/// The text in one line of `width`, or broken between words into two; the second line is shortened if necessary.
pub(super) fn one_or_two_lines(text: &str, size: f64, width: f64) -> Vec<String> {
    let fits = |text: &str| text_width(text, size) <= width;
    let mut breaks = text.match_indices(' ').map(|(i, _)| i).filter(|i| fits(&text[..*i]));
    match breaks.next_back().filter(|_| !fits(text)) {
        None => vec![cut(text, size, width)],
        Some(i) => vec![text[..i].to_owned(), cut(&text[i + 1..], size, width)],
    }
}

/// One entry of a legend.
pub(super) struct Entry<'a> {
    pub name: &'a str,
    pub colour: usize,
    pub dashed: bool,
    /// Whether the swatch is that of a bar instead of a line.
    pub solid: bool,
}

/// The shapes added so far.
#[derive(Default)]
pub(super) struct Canvas {
    pub body: String,
}

impl Canvas {
    pub fn text(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        self.body +=
            &format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
    }

    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.body += &format!(r#"<path class="{class}" d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}"/>"#);
    }

    pub fn path(&mut self, class: &str, d: &str) {
        if !d.is_empty() {
            self.body += &format!(r#"<path class="{class}" d="{d}"/>"#);
        }
    }

    /// A rectangle that shows `hint` under the pointer, unless it is empty.
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), hint: &str) {
        self.body += &format!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}""#
        );
        match hint {
            "" => self.body.push_str("/>"),
            hint => self.body += &format!("><title>{}</title></rect>", escape(hint)),
        }
    }

    /// Draws the title, the label, and the legend if it has more than one entry. Returns the y coordinate of their end.
    pub fn head(&mut self, title: &str, label: &str, legend: &[Entry]) -> f64 {
        let mut y = 16.0;
        self.text("title", 0.0, y, "start", &cut(title, 13.0, WIDTH));
        if !label.is_empty() {
            y += 16.0;
            self.text("label", 0.0, y, "start", &cut(label, 11.0, WIDTH));
        }
        if legend.len() > 1 {
            y += 18.0;
            let mut x = 0.0;
            for entry in legend {
                let name = cut(entry.name, 11.0, WIDTH - 32.0);
                let width = 20.0 + text_width(&name, 11.0);
                if x + width > WIDTH && x > 0.0 {
                    (x, y) = (0.0, y + 16.0);
                }
                let colour = entry.colour % COLOURS;
                match entry.solid {
                    true => self.rect(&format!("fill c{colour}"), (x, y - 8.5), (10.0, 9.0), ""),
                    false => {
                        let class = format!("curve s{colour}{}", if entry.dashed { " dashed" } else { "" });
                        self.line(&class, (x, y - 4.0), (x + 14.0, y - 4.0));
                    }
                }
                self.text("label", x + if entry.solid { 14.0 } else { 18.0 }, y, "start", &name);
                x += width + 14.0;
            }
        }
        y + 12.0
    }

    /// The drawing as part of a page or, with its own styles and background, as a file (`alone`).
    pub fn finish(self, height: f64, title: &str, alone: bool) -> String {
        let (title, body) = (escape(title), self.body);
        let size = format!(r#"viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{title}""#);
        if !alone {
            return format!(r#"<svg class="plot" {size}>{body}</svg>"#);
        }
        let (w, h) = (WIDTH + 24.0, height + 20.0);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" width=\"{:.0}\" height=\"{:.0}\" \
             viewBox=\"-12 -10 {w} {h:.0}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n<rect class=\"ground\" x=\"-12\" y=\"-10\" width=\"{w}\" height=\"{h:.0}\" \
             rx=\"8\"/>{body}</svg>\n",
            1.5 * w,
            1.5 * h
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_become_markup() {
        let text = "<script>alert(\"1\" + '2')</script> & \u{0}\u{1b}\u{ffff}\r\n";
        let escaped = "&lt;script&gt;alert(&quot;1&quot; + &#39;2&#39;)&lt;/script&gt; &amp; \u{fffd}\u{fffd}\u{fffd}\n";
        assert_eq!(escape(text), escaped);
        assert_eq!(escape("größer – 大\t"), "größer – 大\t");
    }

    #[test]
    fn a_number_is_not_separated_from_its_unit() {
        let text = prose("5 % (95 % interval 1 to 9 %), 2.4 nats; 3 min 43 s, a % <b> 7 apples");
        let expected = "5\u{a0}% (95\u{a0}% interval 1 to 9\u{a0}%), 2.4\u{a0}nats; 3\u{a0}min 43\u{a0}s, a % &lt;b&gt; 7 apples";
        assert_eq!(text, expected);
    }

    #[test]
    fn only_a_text_that_is_too_wide_is_shortened() {
        assert_eq!(cut("learning rate", 10.0, 80.0), "learning rate");
        let short = cut("a very long name of an experiment", 10.0, 80.0);
        assert!(short.ends_with('…') && text_width(&short, 10.0) <= 80.0, "{short}");
        assert!(short.starts_with("a very"), "{short}");
    }

    #[test]
    fn a_name_is_broken_between_words_into_two_lines_at_most() {
        let lines = |text: &str| one_or_two_lines(text, 10.0, 60.0);
        assert_eq!(lines("ten chars."), ["ten chars."]);
        assert_eq!(lines("all weights trained"), ["all", "weights t…"]);
        assert_eq!(lines("weightsandadapter"), ["weightsan…"]);
    }

    #[test]
    fn a_legend_that_is_too_long_for_a_line_is_continued_on_the_next() {
        let names = ["online preference optimisation", "offline preference optimisation", "start"];
        let entry = |i: usize| Entry { name: names[i], colour: i, dashed: false, solid: false };
        let end = |count: usize| Canvas::default().head("t", "", &(0..count).map(entry).collect::<Vec<_>>());
        assert_eq!(end(0), end(1), "one series needs no legend");
        assert_eq!((end(2) - end(1), end(3) - end(1)), (18.0 + 16.0, 18.0 + 16.0));
    }
}
