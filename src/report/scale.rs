//! Axes with round ticks, number formats, and estimates with intervals.

use crate::eval::wilson_interval;
use crate::numbers::decimals;

/// A value and the ends of its interval. Without an interval, both ends equal the value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The value. If it is not finite, it is drawn as missing.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl Estimate {
    /// `value` with the interval from `low` to `high`.
    pub fn new(value: f64, low: f64, high: f64) -> Estimate {
        Estimate { value, low, high }
    }

    /// The share of `wins` in `trials`, with its 95 % Wilson interval; missing without trials.
    pub fn share(wins: usize, trials: usize) -> Estimate {
        let (low, high) = wilson_interval(wins, trials);
        Estimate { value: wins as f64 / trials as f64, low, high }
    }

    /// The interval as text, with one unit: "88.0 to 95.2 %".
    pub fn interval(&self, unit: Unit) -> String {
        let low = unit.format(self.low);
        format!("{} to {}", low.trim_end_matches(" %"), unit.format(self.high))
    }

    /// Whether there is an interval to draw.
    pub fn has_interval(&self) -> bool {
        usable(self.low) && usable(self.high) && self.high > self.low
    }
}

/// A value without an interval.
impl From<f64> for Estimate {
    fn from(value: f64) -> Estimate {
        Estimate { value, low: value, high: value }
    }
}

/// The unit of values, which determines how they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Plain numbers.
    #[default]
    Plain,
    /// Shares of 1, in per cent.
    Share,
}

impl Unit {
    /// Formats a value: three significant digits, or per cent with one decimal; a dash if the value is not finite.
    pub fn format(self, value: f64) -> String {
        match self {
            _ if !usable(value) => "–".into(),
            Unit::Share => minus(decimals(100.0 * value, 1) + " %"),
            Unit::Plain => number(value),
        }
    }
}

/// Whether a number can be drawn. Beyond 1e300 the size of a range would overflow.
pub(super) fn usable(value: f64) -> bool {
    value.abs() < 1e300
}

/// Formats a number with three significant digits, or all digits of its whole part: 0.633, 12.5, 440,348, 5e-7.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !usable(value) {
        return "–".into();
    }
    minus(match size {
        0.0 => "0".into(),
        _ if !(9.995e-4..1e9).contains(&size) => {
            let text = format!("{value:.2e}");
            let (mantissa, exponent) = text.split_once('e').expect("has an exponent");
            format!("{}e{exponent}", trimmed(mantissa))
        }
        _ if size >= 999.5 => grouped(value),
        _ => trimmed(&format!("{value:.*}", (2.0 - size.log10().floor()).max(0.0) as usize)).into(),
    })
}

/// Formats values that are shown together, all with the number of decimals that the largest has with three significant
/// digits.
pub(super) fn alike<const N: usize>(values: [f64; N]) -> [String; N] {
    let largest = values.iter().map(|value| value.abs()).filter(|size| usable(*size)).fold(0.0, f64::max);
    let digits = match largest {
        _ if largest != 0.0 && largest < 5e-4 => return values.map(number),
        _ if largest < 0.9995 => 3,
        _ if largest < 9.995 => 2,
        _ if largest < 99.95 => 1,
        _ => return values.map(|value| if usable(value) { minus(grouped(value)) } else { "–".into() }),
    };
    values.map(|value| if usable(value) { minus(decimals(value, digits)) } else { "–".into() })
}

/// Removes trailing zeros of decimals: "12.50" becomes "12.5".
fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// A whole number with commas between thousands.
fn grouped(value: f64) -> String {
    let text = decimals(value, 0);
    let digits = text.trim_start_matches('-').len();
    let mut out = String::new();
    for (i, c) in text.chars().rev().enumerate() {
        if i > 0 && i < digits && i.is_multiple_of(3) {
            out.insert(0, ',');
        }
        out.insert(0, c);
    }
    out
}

/// Replaces the hyphen at the start by a minus sign. The hyphen of an exponent is kept, so that programs can parse it.
pub(super) fn minus(text: String) -> String {
    match text.strip_prefix('-') {
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// Formats a duration: "3 min 43 s".
pub(super) fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// An axis of a plot: a range of values and its ticks at round numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    step: f64,
    unit: Unit,
}

impl Axis {
    /// An axis from the smallest to the largest finite one of `values`, with at most `ticks` + 1 ticks, which are 1, 2 or
    /// 5 times a power of ten apart. `None` without a finite value.
    pub fn fit(values: impl IntoIterator<Item = f64>, ticks: usize, unit: Unit) -> Option<Axis> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|v| usable(*v)) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            return None;
        }
        // Values that differ only in their last digits are treated as equal.
        let size = low.abs().max(high.abs());
        if high - low <= 1e-9 * size || high == low {
            let room = if size == 0.0 { 1.0 } else { 0.1 * size };
            (low, high) =
                if low >= 0.0 { ((low - room).max(0.0), high + room) } else { (low - room, high + room) };
        }
        let rough = (high - low) / ticks as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].map(|m| m * power).into_iter().find(|s| *s >= rough * (1.0 - 1e-9));
        Some(Axis { low, high, step: step.unwrap_or(10.0 * power), unit })
    }

    /// The axis with ticks at whole numbers only.
    pub fn whole(self) -> Axis {
        Axis { step: self.step.max(1.0), ..self }
    }

    /// The axis, extended so that both ends are ticks.
    pub fn rounded(self) -> Axis {
        let low = (self.low / self.step + 1e-6).floor() * self.step;
        let high = (self.high / self.step - 1e-6).ceil() * self.step;
        Axis { low, high, ..self }
    }

    /// The ticks within the range.
    pub fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.step - 1e-6).ceil() as i64;
        let last = (self.high / self.step + 1e-6).floor() as i64;
        (first..=last).map(|i| i as f64 * self.step).collect()
    }

    /// The label of a tick, with as many digits as are needed to distinguish it from its neighbours.
    pub fn label(&self, tick: f64) -> String {
        let (scale, mut suffix) = if self.unit == Unit::Share { (100.0, " %") } else { (1.0, "") };
        let (mut tick, mut step) = (scale * tick, scale * self.step);
        let size = scale * self.low.abs().max(self.high.abs());
        let exponent = |v: f64| (v.abs().log10() + 1e-9).floor();
        if tick != 0.0 && !(0.999e-3..1e9).contains(&size) {
            let digits = (exponent(tick) - exponent(step)).max(0.0) as usize;
            return minus(format!("{tick:.digits$e}{suffix}"));
        }
        let shortened = [(2e6, 1e6, "M"), (1e4, 1e3, "k")].into_iter().find(|(from, ..)| size >= *from);
        if let Some((_, thousands, letter)) = shortened.filter(|_| tick != 0.0) {
            (tick, step, suffix) = (tick / thousands, step / thousands, letter);
        }
        let digits = if tick == 0.0 { 0.0 } else { (-exponent(step)).max(0.0) } as usize;
        minus(decimals(tick, digits) + suffix)
    }

    /// The position of `value` relative to the range: -1 below it, 1 above it, 0 within.
    pub fn beyond(&self, value: f64) -> i8 {
        // Rounding errors at the ends do not count.
        let slack = 1e-9 * (self.high - self.low);
        if value > self.high + slack {
            1
        } else if value < self.low - slack {
            -1
        } else {
            0
        }
    }

    /// The coordinate of `value`, from `from` (the low end) to `to` (the high end). Values outside the range are placed at
    /// the nearer end.
    pub fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        from + ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0) * (to - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], ticks: usize, unit: Unit) -> Vec<String> {
        let axis = Axis::fit(values.iter().copied(), ticks, unit).unwrap().rounded();
        axis.ticks().into_iter().map(|t| axis.label(t)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_that_enclose_the_values() {
        assert_eq!(labels(&[0.633, 0.69], 4, Unit::Plain), ["0.62", "0.64", "0.66", "0.68", "0.70"]);
        assert_eq!(labels(&[-3.0, 11.0], 4, Unit::Plain), ["−5", "0", "5", "10", "15"]);
        assert_eq!(labels(&[0.0, 1.0], 4, Unit::Share), ["0 %", "50 %", "100 %"]);
        assert_eq!(labels(&[0.0, 1e-3], 4, Unit::Plain), ["0", "0.0005", "0.0010"]);
        assert_eq!(labels(&[0.0, 0.004], 4, Unit::Share), ["0 %", "0.1 %", "0.2 %", "0.3 %", "0.4 %"]);
        assert_eq!(labels(&[0.0, 5e-7], 5, Unit::Plain), ["0", "1e-7", "2e-7", "3e-7", "4e-7", "5e-7"]);
        assert_eq!(labels(&[0.0, 1.4e-6], 4, Unit::Plain), ["0", "5e-7", "1.0e-6", "1.5e-6"]);
        assert_eq!(labels(&[0.0, 25e3], 5, Unit::Plain), ["0", "5k", "10k", "15k", "20k", "25k"]);
        assert_eq!(labels(&[0.0, 2.5e6], 5, Unit::Plain), ["0", "0.5M", "1.0M", "1.5M", "2.0M", "2.5M"]);
        for count in 1..9 {
            for (low, high) in [(0.0, 1.0), (-1e-12, 3e-12), (7.0, 7e7), (-0.3, -0.1), (99.0, 101.0)] {
                let axis = Axis::fit([low, high], count, Unit::Plain).unwrap();
                let inside = axis.ticks();
                assert!(inside.len() <= count + 1, "{low} {high} {count} {inside:?}");
                assert!(inside.iter().all(|t| *t >= low - axis.step * 1e-3 && *t <= high + axis.step * 1e-3));
                let (rounded, step) = (axis.clone().rounded(), axis.step);
                assert!(rounded.low <= low && rounded.high >= high, "{low} {high} {rounded:?}");
                assert!(low - rounded.low < step && rounded.high - high < step, "{low} {high} {rounded:?}");
            }
        }
    }

    #[test]
    fn an_axis_for_a_single_value_has_a_range_and_there_is_none_without_numbers() {
        for value in [0.0, 5.0, -5.0, 1e-300, 1e18, -1e299] {
            let axis = Axis::fit([value, value * (1.0 + 1e-12)], 4, Unit::Plain).unwrap();
            assert!(axis.low <= value && value <= axis.high && axis.low < axis.high, "{value} {axis:?}");
            assert!((1..7).contains(&axis.rounded().ticks().len()), "{value}");
        }
        let nothing = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX];
        assert_eq!(Axis::fit(nothing, 4, Unit::Plain), None);
        assert_eq!(Axis::fit([f64::NAN, 1.0, 2.0], 4, Unit::Plain), Axis::fit([1.0, 2.0], 4, Unit::Plain));
    }

    #[test]
    fn places_are_linear_and_within_the_axis() {
        let axis = Axis::fit([10.0, 20.0], 5, Unit::Plain).unwrap();
        let places = [10.0, 15.0, 20.0, 99.0, -99.0].map(|v| axis.place(v, 100.0, 0.0));
        assert_eq!(places, [100.0, 50.0, 0.0, 0.0, 100.0]);
    }

    #[test]
    fn values_beyond_the_range_are_distinguished_from_its_ends() {
        let axis = Axis::fit([10.0, 20.0], 5, Unit::Plain).unwrap();
        assert_eq!([9.0, 10.0, 15.0, 20.0, 20.0 + 1e-12, 21.0].map(|v| axis.beyond(v)), [-1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let cases = [
            (0.0, "0"),
            (0.63327, "0.633"),
            (-0.0512, "−0.0512"),
            (0.001, "0.001"),
            (5e-7, "5e-7"),
            (-1.234e-9, "−1.23e-9"),
            (54.14, "54.1"),
            (64.0, "64"),
            (999.4, "999"),
            (999.6, "1,000"),
            (-1234567.0, "−1,234,567"),
            (2.5e12, "2.5e12"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(Unit::Share.format(0.8049), "80.5 %");
        assert_eq!(Unit::Share.format(f64::NAN), "–");
        assert_eq!([-0.0003, -0.0006].map(|share| Unit::Share.format(share)), ["0.0 %", "−0.1 %"]);
        assert_eq!(
            [0.26, 59.4, 60.0, 223.4, 4000.0].map(duration),
            ["0.3 s", "59 s", "1 min 00 s", "3 min 43 s", "1 h 06 min"]
        );
    }

    #[test]
    fn values_that_are_shown_together_have_the_same_decimals() {
        let texts = |values: [f64; 2]| alike(values).join(" ");
        assert_eq!(texts([0.65, 0.6928]), "0.650 0.693");
        assert_eq!(texts([2.4, 0.0004]), "2.40 0.00");
        assert_eq!(texts([14.72, -0.01]), "14.7 0.0");
        assert_eq!(texts([-1234.5, 99.0]), "−1,234 99");
        assert_eq!(texts([1e-6, 2e-7]), "1e-6 2e-7");
        assert_eq!(texts([0.0, f64::NAN]), "0.000 –");
        assert_eq!(Estimate::new(0.9, 0.88, 0.9521).interval(Unit::Share), "88.0 to 95.2 %");
    }

    #[test]
    fn a_share_has_an_interval_and_no_trials_have_no_share() {
        let share = Estimate::share(161, 200);
        assert!((share.value, share.low > 0.74, share.high < 0.86) == (0.805, true, true), "{share:?}");
        assert!(share.has_interval() && !Estimate::from(1.0).has_interval());
        assert!(Estimate::share(0, 0).value.is_nan());
    }
}
