//! Curves over a common axis, with smoothing and thinning of long curves.

use super::scale::{Axis, Estimate, Unit, usable};
use super::svg::{COLOURS, Canvas, Entry, WIDTH, text_width};
use crate::numbers::evenly;

/// Noisy series of at least this many points are smoothed: the points are drawn faintly below their running mean.
const SMOOTH_FROM: usize = 12;
/// The largest number of places at which a running mean is drawn, and of its faint points. An unsmoothed curve has at most
/// twice as many points.
const VERTICES: usize = 300;
/// The number of places that show their values under the pointer.
const HINTS: usize = 40;
/// Height of a plot.
const HEIGHT: f64 = 236.0;

/// The smallest distance in pixels between two arrows at an edge.
const ARROWS: f64 = 6.0;

/// The number of points that a running mean over a series of `n` points averages: odd, about 1.5 √n; 1 for a short series,
/// which is not smoothed.
pub fn smoothing_window(n: usize) -> usize {
    if n < SMOOTH_FROM { 1 } else { (1.5 * (n as f64).sqrt()) as usize | 1 }
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Series {
    name: String,
    points: Vec<(f64, Estimate)>,
    noisy: bool,
    dots: bool,
    dashed: bool,
    colour: Option<usize>,
}

impl Series {
    /// A curve through the points (x, y), with a gap where y is not finite.
    pub fn line(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        Series::band(name, points.into_iter().map(|(x, y)| (x, y.into())))
    }

    /// Noisy measurements: a running mean over [`smoothing_window`] points, with the points drawn faintly. Points whose y
    /// is not finite are left out.
    pub fn noisy(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        let mut series = Series::line(name, points);
        series.points.retain(|(_, y)| usable(y.value));
        series.noisy = series.points.len() >= SMOOTH_FROM;
        series
    }

    /// A curve through the points (x, estimate), with a band that covers their intervals.
    pub fn band(name: impl Into<String>, points: impl IntoIterator<Item = (f64, Estimate)>) -> Series {
        let points = points.into_iter().filter(|(x, _)| usable(*x)).collect();
        Series { name: name.into(), points, noisy: false, dots: true, dashed: false, colour: None }
    }

    /// Draws only the running mean of a noisy series, without its points: for series that overlap.
    pub fn without_points(mut self) -> Series {
        self.dots = false;
        self
    }

    /// Draws a dashed curve, to distinguish the second of two kinds, such as offline from online.
    pub fn dashed(mut self) -> Series {
        self.dashed = true;
        self
    }

    /// Uses the colour of series number `n` of the plot (counted from 0) instead of that of its own number.
    pub fn colour(mut self, n: usize) -> Series {
        self.colour = Some(n);
        self
    }

    /// Whether there is no point to draw.
    pub fn is_empty(&self) -> bool {
        !self.points.iter().any(|(_, y)| usable(y.value))
    }

    /// The points of the curve that is drawn strongly: of the running mean, if the series is smoothed.
    fn curve(&self) -> Vec<(f64, f64)> {
        let values: Vec<(f64, f64)> = self.points.iter().map(|(x, y)| (*x, y.value)).collect();
        if self.noisy { running_mean(&values) } else { thinned(&values) }
    }

    /// The values that the y axis must cover. The outermost hundredths of noisy points are covered only if they are near
    /// the others, so that a spike does not flatten the rest. Points beyond the axis are marked by arrows.
    fn extent(&self) -> Vec<f64> {
        if self.noisy {
            let mut values: Vec<f64> = match self.dots {
                true => self.points.iter().map(|(_, y)| y.value).collect(),
                false => self.curve().into_iter().map(|(_, y)| y).collect(),
            };
            values.sort_by(f64::total_cmp);
            let (beyond, last) = (values.len() / 100, values.len() - 1);
            let (low, high) = (values[beyond], values[last - beyond]);
            let room = 0.25 * (high - low);
            let or_outermost = |end: f64, outermost: f64| {
                if (end - outermost).abs() <= room { outermost } else { end }
            };
            return vec![or_outermost(low, values[0]), or_outermost(high, values[last])];
        }
        self.points
            .iter()
            .flat_map(|(_, y)| if y.has_interval() { [y.low, y.high] } else { [y.value; 2] })
            .collect()
    }
}

/// Means over windows around [`VERTICES`] of the points. At the ends, the windows are shorter.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = smoothing_window(points.len()) / 2;
    let at = |centre: usize| {
        let window = &points[centre.saturating_sub(half)..(centre + half + 1).min(points.len())];
        (points[centre].0, window.iter().map(|(_, y)| y).sum::<f64>() / window.len() as f64)
    };
    evenly(points.len(), VERTICES).map(at).collect()
}

/// At most twice [`VERTICES`] of the points: the lowest and the highest of every stretch, so that spikes remain visible.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * VERTICES {
        return points.to_vec();
    }
    let extremes = |stretch: &[(f64, f64)]| {
        let by_height = |i: &usize, j: &usize| stretch[*i].1.total_cmp(&stretch[*j].1);
        let usable = || (0..stretch.len()).filter(|i| usable(stretch[*i].1));
        let mut both: Vec<usize> =
            usable().min_by(by_height).into_iter().chain(usable().max_by(by_height)).collect();
        both.sort_unstable();
        both.dedup();
        both.into_iter().map(|i| stretch[i]).collect::<Vec<_>>()
    };
    points.chunks(points.len().div_ceil(VERTICES)).flat_map(extremes).collect()
}

/// Curves over a common axis.
///
/// ```
/// use oaif::unstable::report::{Estimate, Plot, Series, Unit};
/// let rates = [(0, 50), (50, 64), (100, 81)].map(|(step, wins)| (step as f64, Estimate::share(wins, 100)));
/// let plot = Plot::new("Win rate").labels("step", "share of 100 held-out prompts").unit(Unit::Share);
/// let svg = plot.level(0.5).series(Series::band("DPO", rates)).svg();
/// assert!(svg.starts_with("<svg xmlns"));
/// ```
#[derive(Clone, Debug)]
pub struct Plot {
    title: String,
    x_label: String,
    y_label: String,
    unit: Unit,
    level: Option<f64>,
    zero: bool,
    covered: Vec<f64>,
    series: Vec<Series>,
}

impl Plot {
    /// A plot without curves.
    pub fn new(title: impl Into<String>) -> Plot {
        Plot {
            title: title.into(),
            x_label: String::new(),
            y_label: String::new(),
            unit: Unit::Plain,
            level: None,
            zero: false,
            covered: Vec::new(),
            series: Vec::new(),
        }
    }

    /// Sets the labels of the axes, with their units: x below its axis, y below the title.
    pub fn labels(mut self, x: impl Into<String>, y: impl Into<String>) -> Plot {
        (self.x_label, self.y_label) = (x.into(), y.into());
        self
    }

    /// Sets the unit of y.
    pub fn unit(mut self, unit: Unit) -> Plot {
        self.unit = unit;
        self
    }

    /// Draws a horizontal line at a notable value, such as chance or no change.
    pub fn level(mut self, y: f64) -> Plot {
        self.level = Some(y);
        self
    }

    /// Makes the y axis begin at 0 or below.
    pub fn from_zero(mut self) -> Plot {
        self.zero = true;
        self
    }

    /// Makes the x axis cover the steps `first` to `last`, with ticks at whole numbers, so that several plots have the same
    /// axis.
    pub fn over(mut self, first: f64, last: f64) -> Plot {
        self.covered = vec![first, last];
        self
    }

    /// Adds a curve, unless it is empty.
    pub fn series(mut self, series: Series) -> Plot {
        if !series.is_empty() {
            self.series.push(series);
        }
        self
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The content of an `.svg` file, with styles for light and dark mode.
    pub fn svg(&self) -> String {
        self.draw(true)
    }

    /// Draws the plot as a file of its own (`alone`), or as part of a page, where it shows values under the pointer.
    pub(super) fn draw(&self, alone: bool) -> String {
        let mut canvas = Canvas::default();
        let colour = |i: usize, series: &Series| series.colour.unwrap_or(i) % COLOURS;
        let legend: Vec<Entry> = self
            .series
            .iter()
            .enumerate()
            .map(|(i, s)| Entry { name: &s.name, colour: colour(i, s), dashed: s.dashed, solid: false })
            .collect();
        let curves: Vec<Vec<(f64, f64)>> = self.series.iter().map(Series::curve).collect();
        let extents = self.series.iter().flat_map(Series::extent);
        let ys = extents.chain(self.level).chain(self.zero.then_some(0.0));
        let top = canvas.head(&self.title, &self.y_label, &legend);
        let xs =
            self.series.iter().flat_map(|s| s.points.iter().map(|(x, _)| *x)).chain(self.covered.clone());
        let axes = Axis::fit(ys, 5, self.unit).zip(
            Axis::fit(xs, 5, Unit::Plain).map(
                |axis| {
                    if self.covered.is_empty() { axis } else { axis.whole() }
                },
            ),
        );
        let Some((y, x)) = axes.map(|(y, x)| (y.rounded(), x)) else {
            return canvas.finish(HEIGHT, &self.title, alone);
        };
        let labels: Vec<String> = y.ticks().into_iter().map(|t| y.label(t)).collect();
        let widest = labels.iter().map(|l| text_width(l, 11.0)).fold(0.0, f64::max);
        let (left, right, bottom) = (widest + 12.0, WIDTH - 10.0, HEIGHT - 36.0);
        let place = |px: f64, py: f64| (x.place(px, left, right), y.place(py, bottom, top));

        for (tick, label) in y.ticks().into_iter().zip(&labels) {
            let height = place(x.low, tick).1;
            canvas.line("grid", (left, height), (right, height));
            canvas.text("tick", left - 7.0, height + 3.8, "end", label);
        }
        for tick in x.ticks() {
            let (at, label) = (place(tick, y.low).0, x.label(tick));
            // The last label must not extend beyond the picture.
            let half = text_width(&label, 11.0) / 2.0;
            let end = at + half > WIDTH;
            canvas.line("axis", (at, bottom), (at, bottom + 4.0));
            let (at, anchor) = if end { (WIDTH, "end") } else { (at, "middle") };
            canvas.text("tick", at, bottom + 17.0, anchor, &label);
        }
        canvas.line("axis", (left, bottom), (right, bottom));
        canvas.text("label", right, bottom + 32.0, "end", &self.x_label);
        if let Some(level) = self.level {
            let height = place(x.low, level).1;
            canvas.line("level", (left, height), (right, height));
        }
        for (i, series) in self.series.iter().enumerate() {
            let colour = colour(i, series);
            if series.noisy {
                let mut dots = String::new();
                for (px, py) in evenly(series.points.len(), VERTICES).map(|i| &series.points[i]) {
                    if series.dots && y.beyond(py.value) == 0 {
                        let (at, height) = place(*px, py.value);
                        // A stroke of length 0 is drawn as a dot.
                        dots += &format!("M{at:.1} {height:.1}h0");
                    }
                }
                canvas.path(&format!("dots s{colour}"), &dots);
                let all: Vec<(f64, f64)> = match series.dots {
                    true => series.points.iter().map(|(px, py)| (*px, py.value)).collect(),
                    false => curves[i].clone(),
                };
                let (mut arrows, mut ends) = (String::new(), [f64::NEG_INFINITY; 2]);
                for (px, py) in all {
                    let side = y.beyond(py);
                    let (at, height) = place(px, py);
                    let end = &mut ends[usize::from(side > 0)];
                    if side == 0 || at - *end < ARROWS {
                        continue;
                    }
                    *end = at;
                    arrows += &match side {
                        1 => format!("M{:.1} {:.1}l3 -4l3 4", at - 3.0, height + 5.0),
                        _ => format!("M{:.1} {:.1}l3 4l3 -4", at - 3.0, height - 5.0),
                    };
                }
                canvas.path(&format!("beyond s{colour}"), &arrows);
            }
            for stretch in series.points.split(|(_, y)| !y.has_interval()).filter(|s| !s.is_empty()) {
                if let [(px, y)] = stretch {
                    let ((x, low), (_, high)) = (place(*px, y.low), place(*px, y.high));
                    canvas.path(&format!("interval s{colour}"), &format!("M{x:.1} {low:.1}V{high:.1}"));
                    continue;
                }
                let above = stretch.iter().map(|(px, y)| place(*px, y.high));
                let below = stretch.iter().rev().map(|(px, y)| place(*px, y.low));
                let outline: Vec<(f64, f64)> = above.chain(below).collect();
                canvas.path(&format!("band c{colour}"), &(path(&outline) + "Z"));
            }
        }
        for (i, (series, curve)) in self.series.iter().zip(&curves).enumerate() {
            let colour = colour(i, series);
            let dashed = if series.dashed { " dashed" } else { "" };
            for stretch in curve.split(|(_, y)| !usable(*y)) {
                let stretch: Vec<(f64, f64)> = stretch.iter().map(|(px, py)| place(*px, *py)).collect();
                canvas.path(&format!("curve s{colour}{dashed}"), &path(&stretch));
                // A short curve shows its points; a single point would not be visible otherwise.
                if !series.noisy && (curve.len() <= 20 || stretch.len() == 1) {
                    let dots: String = stretch.iter().map(|(x, y)| format!("M{x:.1} {y:.1}h0")).collect();
                    canvas.path(&format!("mark s{colour}"), &dots);
                }
            }
        }
        if !alone {
            self.hints(&mut canvas, &curves, &x, (left, right), (top, bottom));
        }
        canvas.finish(HEIGHT, &self.title, alone)
    }

    /// Adds invisible strips that show the values of the curves under the pointer.
    fn hints(
        &self,
        canvas: &mut Canvas,
        curves: &[Vec<(f64, f64)>],
        x: &Axis,
        (left, right): (f64, f64),
        (top, bottom): (f64, f64),
    ) {
        let Some(longest) = curves.iter().max_by_key(|c| c.len()) else { return };
        let places: Vec<f64> = evenly(longest.len(), HINTS).map(|i| longest[i].0).collect();
        for (i, at) in places.iter().enumerate() {
            let pixel = |i: usize| x.place(places[i], left, right);
            let from = if i == 0 { left } else { 0.5 * (pixel(i - 1) + pixel(i)) };
            let to = if i + 1 == places.len() { right } else { 0.5 * (pixel(i) + pixel(i + 1)) };
            let mut hint = format!("{} {}", self.x_label, super::scale::number(*at));
            for (series, curve) in self.series.iter().zip(curves) {
                let near = curve.iter().min_by(|(a, _), (b, _)| (a - at).abs().total_cmp(&(b - at).abs()));
                let value = near.map_or(f64::NAN, |(_, y)| *y);
                let name = if self.series.len() > 1 { &series.name } else { &self.title };
                hint += &format!("\n{name} {}", self.unit.format(value));
            }
            canvas.rect("hint", (from, top), (to - from, bottom - top), &hint);
        }
    }
}

/// "M1 2L3 4L5 6"; nothing for no point.
fn path(points: &[(f64, f64)]) -> String {
    let mut out = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        out += &format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `d` of the paths of this class.
    fn paths<'a>(svg: &'a str, class: &str) -> Vec<&'a str> {
        let open = format!("<path class=\"{class}\" d=\"");
        svg.split(&open).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
    }

    #[test]
    fn a_curve_goes_from_corner_to_corner_of_its_axes() {
        let svg = Plot::new("t").series(Series::line("a", [(0.0, 0.0), (5.0, 1.0), (10.0, 4.0)])).svg();
        // Left of the area: a label of one character. Its bottom and top: the height less the x axis, the title.
        let left = text_width("0", 11.0) + 12.0;
        let (middle, top, bottom) = ((left + 350.0) / 2.0, 28.0, HEIGHT - 36.0);
        let quarter = bottom - (bottom - top) / 4.0;
        let expected = format!("M{left:.1} {bottom:.1}L{middle:.1} {quarter:.1}L350.0 {top:.1}");
        assert_eq!(paths(&svg, "curve s0"), [expected]);
    }

    #[test]
    fn values_that_are_not_finite_are_gaps_in_a_line_and_left_out_of_a_mean() {
        let points =
            [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, f64::INFINITY), (f64::NAN, 0.0)];
        let svg = Plot::new("t").series(Series::line("a", points)).svg();
        assert_eq!(paths(&svg, "curve s0").len(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");

        let values = (0..50).map(|i| (i as f64, if i % 2 == 0 { f64::NAN } else { 3.0 }));
        let noisy = Series::noisy("a", values);
        assert!(noisy.curve().len() == 25 && noisy.curve().iter().all(|(_, y)| *y == 3.0));
        assert!(Plot::new("t").series(Series::noisy("a", [(0.0, f64::NAN)])).is_empty());
        assert!(Plot::new("t").svg().contains("</svg>"), "no series is no panic");
    }

    #[test]
    fn a_running_mean_averages_its_window() {
        let ramp: Vec<(f64, f64)> = (0..60).map(|i| (i as f64, i as f64)).collect();
        let mean = running_mean(&ramp);
        assert_eq!([11, 12, 60, 10_000].map(smoothing_window), [1, 5, 11, 151]);
        // Over 0..=5, over 25..=35, over 54..=59.
        assert_eq!((mean[0], mean[30], mean[59]), ((0.0, 2.5), (30.0, 30.0), (59.0, 56.5)));
        let long: Vec<(f64, f64)> = (0..100_000).map(|i| (i as f64, 2.0)).collect();
        let mean = running_mean(&long);
        assert_eq!((mean.len(), mean[0], mean[VERTICES - 1]), (VERTICES, (0.0, 2.0), (99_999.0, 2.0)));
    }

    #[test]
    fn thinning_keeps_spikes_and_order() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (i as f64, (i as f64).sin())).collect();
        (points[1234].1, points[5678].1) = (50.0, -50.0);
        let few = thinned(&points);
        assert!(few.len() <= 2 * VERTICES + 2, "{}", few.len());
        assert!(few.contains(&(1234.0, 50.0)) && few.contains(&(5678.0, -50.0)));
        assert!(few.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(thinned(&points[..400]), &points[..400]);
    }

    #[test]
    fn one_spike_does_not_flatten_a_long_run() {
        let mut points: Vec<(f64, f64)> = (0..2000).map(|i| (i as f64, (i % 7) as f64)).collect();
        points[3].1 = 1e9;
        let series = Series::noisy("a", points.clone());
        assert_eq!(series.extent(), [0.0, 6.0]);
        // A point that is near the others is in the range.
        points[3].1 = 7.4;
        assert_eq!(Series::noisy("a", points.clone()).extent(), [0.0, 7.4]);
        points[3].1 = 1e9;
        // A short series is not smoothed and has no outliers.
        assert_eq!(Series::noisy("a", points[..50].to_vec()).extent(), [0.0, 1e9]);
    }

    #[test]
    fn a_point_beyond_the_range_is_an_arrow_at_the_edge() {
        let mut points: Vec<(f64, f64)> = (0..2000).map(|i| (i as f64, (i % 7) as f64)).collect();
        (points[0].1, points[1999].1) = (1e9, -1e9);
        let svg = Plot::new("t").series(Series::noisy("a", points.clone())).svg();
        let [arrows] = paths(&svg, "beyond s0")[..] else { panic!("{svg}") };
        assert_eq!(
            (arrows.matches("l3 -4l3 4").count(), arrows.matches("l3 4l3 -4").count()),
            (1, 1),
            "{arrows}"
        );
        points.iter_mut().for_each(|(_, y)| *y = y.clamp(0.0, 6.0));
        let within = Plot::new("t").series(Series::noisy("a", points)).svg();
        assert!(paths(&within, "beyond s0").is_empty(), "{within}");
    }

    #[test]
    fn a_band_is_drawn_where_there_are_intervals() {
        let points =
            [(0.0, Estimate::share(5, 10)), (1.0, Estimate::share(8, 10)), (2.0, Estimate::share(9, 10))];
        let svg = Plot::new("t").unit(Unit::Share).level(0.5).series(Series::band("a", points)).svg();
        let [band] = paths(&svg, "band c0")[..] else { panic!("{svg}") };
        assert!(band.ends_with('Z') && band.matches('L').count() == 5, "{band}");
        assert_eq!(paths(&svg, "level").len(), 1);
        let line = Series::line("a", points.map(|(x, y)| (x, y.value)));
        assert!(paths(&Plot::new("t").series(line).svg(), "band c0").is_empty());
    }

    #[test]
    fn names_are_escaped_everywhere() {
        let series = || Series::line("<script>", [(0.0, 1.0), (1.0, 2.0)]);
        let plot = Plot::new("<b>\"").labels("<x>", "<y>").series(series()).series(series());
        for svg in [plot.draw(true), plot.draw(false)] {
            let tags: Vec<&str> =
                svg.split('<').skip(1).map(|t| t.split([' ', '>', '/']).next().unwrap()).collect();
            let ours = ["svg", "title", "style", "rect", "text", "path", ""];
            assert!(tags.iter().all(|tag| ours.contains(tag)), "{tags:?}");
        }
    }
}
