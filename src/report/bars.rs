//! Horizontal bars with error bars. Each bar has its own row, which leaves room for long names.

use super::scale::{Axis, Estimate, Unit, alike, usable};
use super::svg::{COLOURS, Canvas, Entry, WIDTH, one_or_two_lines, text_width};

/// Heights of a bar, of a line of a name, and of the gap between groups.
const BAR: f64 = 15.0;
const LINE: f64 = 13.0;
const GAP: f64 = 9.0;

/// Bars that start at 0, each with its interval and its value. Every group has a bar for each of the same kinds.
///
/// ```
/// use oaif::unstable::report::{Bars, Estimate, Unit};
/// let bars = Bars::new("Win rate after 1,000 steps").unit(Unit::Share).kinds(["online", "offline"]).level(0.5);
/// let bars = bars.group("DPO", [Estimate::share(81, 100), Estimate::share(58, 100)]);
/// let bars = bars.group("IPO", [Estimate::share(79, 100), Estimate::share(60, 100)]);
/// assert!(bars.svg().contains("81.0 %"));
/// ```
#[derive(Clone, Debug)]
pub struct Bars {
    title: String,
    label: String,
    unit: Unit,
    level: Option<f64>,
    kinds: Vec<String>,
    groups: Vec<(String, Vec<Estimate>)>,
}

impl Bars {
    /// A chart without bars.
    pub fn new(title: impl Into<String>) -> Bars {
        let (label, kinds, groups) = (String::new(), Vec::new(), Vec::new());
        Bars { title: title.into(), label, unit: Unit::Plain, level: None, kinds, groups }
    }

    /// Sets the name of the measured quantity, with its unit.
    pub fn label(mut self, label: impl Into<String>) -> Bars {
        self.label = label.into();
        self
    }

    /// Sets the unit of the values.
    pub fn unit(mut self, unit: Unit) -> Bars {
        self.unit = unit;
        self
    }

    /// Draws a line at a notable value, such as chance.
    pub fn level(mut self, value: f64) -> Bars {
        self.level = Some(value);
        self
    }

    /// Sets the names of the bars of every group, in order.
    pub fn kinds(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Bars {
        self.kinds = names.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a group of bars, one for each kind. A value that is not finite is drawn as missing.
    pub fn group(mut self, name: impl Into<String>, bars: impl IntoIterator<Item = Estimate>) -> Bars {
        self.groups.push((name.into(), bars.into_iter().collect()));
        self
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        !self.groups.iter().flat_map(|(_, bars)| bars).any(|bar| usable(bar.value))
    }

    /// The content of an `.svg` file, with styles for light and dark mode.
    pub fn svg(&self) -> String {
        self.draw(true)
    }

    pub(super) fn draw(&self, alone: bool) -> String {
        let mut canvas = Canvas::default();
        let legend: Vec<Entry> = self
            .kinds
            .iter()
            .enumerate()
            .map(|(colour, name)| Entry { name, colour, dashed: false, solid: true })
            .collect();
        let top = canvas.head(&self.title, &self.label, &legend);
        let all = || self.groups.iter().flat_map(|(_, bars)| bars);
        let ends = all().flat_map(|e| [e.value, e.low, e.high]).chain(self.level).chain([0.0]);
        let Some(axis) = Axis::fit(ends, 4, self.unit).map(Axis::rounded) else {
            return canvas.finish(top, &self.title, alone);
        };
        let widest = |texts: &mut dyn Iterator<Item = String>| {
            texts.map(|text| text_width(&text, 11.0)).fold(0.0, f64::max)
        };
        let name_width = widest(&mut self.groups.iter().map(|(name, _)| name.clone())).min(0.32 * WIDTH);
        let largest = all().map(|e| e.value.abs()).filter(|size| usable(*size)).fold(0.0, f64::max);
        // Plain values have the same decimals.
        let written = |value: f64| match self.unit {
            Unit::Plain => alike([value, largest])[0].clone(),
            Unit::Share => self.unit.format(value),
        };
        let value_width = widest(&mut all().map(|e| written(e.value)));
        let (left, right) = (name_width + 12.0, WIDTH - value_width - 12.0);
        let lines = |name: &str| one_or_two_lines(name, 11.0, name_width);
        let height = |(name, bars): &(String, Vec<Estimate>)| {
            (BAR * bars.len() as f64).max(LINE * lines(name).len() as f64) + GAP
        };
        let bottom = top + self.groups.iter().map(height).sum::<f64>();
        let place = |value: f64| axis.place(value, left, right);

        for tick in axis.ticks() {
            canvas.line("grid", (place(tick), top), (place(tick), bottom));
            canvas.text("tick", place(tick), bottom + 15.0, "middle", &axis.label(tick));
        }
        let mut y = top;
        for group in &self.groups {
            let (name, bars) = group;
            let (middle, lines) = (y + height(group) / 2.0, lines(name));
            for (i, line) in lines.iter().enumerate() {
                let baseline = middle + 3.8 + LINE * (i as f64 - (lines.len() - 1) as f64 / 2.0);
                canvas.text("label strong", left - 8.0, baseline, "end", line);
            }
            for (i, bar) in bars.iter().enumerate() {
                let centre = middle + BAR * (i as f64 - (bars.len() - 1) as f64 / 2.0);
                if usable(bar.value) {
                    let (from, to) = (place(bar.value.min(0.0)), place(bar.value.max(0.0)));
                    let hint = self.hint(name, i, bar);
                    let class = format!("fill c{}", i % COLOURS);
                    canvas.rect(&class, (from, centre - BAR / 2.0 + 1.5), (to - from, BAR - 3.0), &hint);
                }
                if bar.has_interval() {
                    let (low, high) = (place(bar.low), place(bar.high));
                    canvas.line("whisker", (low, centre), (high, centre));
                    for end in [low, high] {
                        canvas.line("whisker", (end, centre - 3.5), (end, centre + 3.5));
                    }
                }
                canvas.text("value", WIDTH - 4.0, centre + 3.8, "end", &written(bar.value));
            }
            y += height(group);
        }
        canvas.line("axis", (place(0.0), top), (place(0.0), bottom));
        if let Some(level) = self.level {
            canvas.line("level", (place(level), top), (place(level), bottom));
        }
        canvas.finish(bottom + 22.0, &self.title, alone)
    }

    fn hint(&self, group: &str, kind: usize, bar: &Estimate) -> String {
        let kind = self.kinds.get(kind).map(|name| format!(", {name}")).unwrap_or_default();
        let interval = match bar.has_interval() {
            true => format!(" ({} to {})", self.unit.format(bar.low), self.unit.format(bar.high)),
            false => String::new(),
        };
        format!("{group}{kind}: {}{interval}", self.unit.format(bar.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(tag: &str, name: &str) -> f64 {
        tag.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    }

    fn rects(svg: &str) -> Vec<&str> {
        svg.split("<rect class=\"fill").skip(1).collect()
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_begin_at_zero() {
        let bars =
            Bars::new("t").group("a", [1.0.into()]).group("b", [4.0.into()]).group("c", [(-2.0).into()]);
        let svg = bars.svg();
        let width = |i: usize| attribute(rects(&svg)[i], "width");
        let unit = width(0);
        assert!(unit > 10.0 && (width(1) - 4.0 * unit).abs() < 0.3 && (width(2) - 2.0 * unit).abs() < 0.3);
        let zero = attribute(rects(&svg)[0], "x");
        assert_eq!(zero, attribute(rects(&svg)[1], "x"));
        assert!((attribute(rects(&svg)[2], "x") + 2.0 * unit - zero).abs() < 0.3, "below zero is left of it");
    }

    #[test]
    fn whiskers_are_drawn_for_intervals_and_missing_values_are_dashes() {
        let bars = Bars::new("t").unit(Unit::Share).kinds(["x", "y"]);
        let bars = bars.group("a", [Estimate::share(8, 10), 0.5.into()]).group("b", [f64::NAN.into()]);
        let svg = bars.svg();
        assert_eq!(svg.matches("class=\"whisker\"").count(), 3, "a line and two ends");
        // Two bars and the legend's two swatches.
        assert_eq!(rects(&svg).len(), 4);
        assert!(svg.contains(">–</text>") && svg.contains(">80.0 %</text>"), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn names_are_escaped_and_cut_to_their_room() {
        let name = format!("<script>{}", "long ".repeat(40));
        let svg = Bars::new("t").group(&*name, [1.0.into()]).svg();
        assert!(svg.contains("&lt;script&gt;") && svg.contains('…') && !svg.contains("<script"), "{svg}");
        assert!(Bars::new("t").is_empty() && Bars::new("t").svg().contains("</svg>"));
        assert!(Bars::new("t").group("a", [f64::NAN.into()]).is_empty());
    }
}
