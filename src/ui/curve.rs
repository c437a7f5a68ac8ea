//! A value by step, in bounded memory regardless of the length of the run.

use serde::{Serialize, Serializer};

/// The maximum number of points of a curve.
pub(super) const POINTS: usize = 1_000;

/// Values by step. If there are too many, neighbouring steps are merged into one point with mean, minimum and maximum.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// The number of steps per point.
    stride: usize,
    points: Vec<Point>,
    latest: Option<f64>,
}

/// The values of neighbouring steps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// The first of its steps.
    first: usize,
    last: usize,
    count: usize,
    sum: f64,
    min: f64,
    max: f64,
}

impl Default for Curve {
    fn default() -> Curve {
        Curve { stride: 1, points: Vec::new(), latest: None }
    }
}

impl Curve {
    /// Adds the value of a step; steps come in order. A value that is not finite is ignored.
    pub fn add(&mut self, step: usize, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.latest = Some(value);
        let point = Point { first: step, last: step, count: 1, sum: value, min: value, max: value };
        self.push(point);
        while self.points.len() > POINTS {
            self.stride *= 2;
            let points = std::mem::take(&mut self.points);
            points.into_iter().for_each(|point| self.push(point));
        }
    }

    /// The latest value.
    pub fn latest(&self) -> Option<f64> {
        self.latest
    }

    fn push(&mut self, point: Point) {
        let stride = self.stride;
        match self.points.last_mut() {
            Some(last) if last.first / stride == point.first / stride => {
                last.last = point.last;
                last.count += point.count;
                last.sum += point.sum;
                last.min = last.min.min(point.min);
                last.max = last.max.max(point.max);
            }
            _ => self.points.push(point),
        }
    }
}

/// `[step, value]`, or for several steps `[middle step, mean, minimum, maximum]`.
impl Serialize for Curve {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.points.iter().map(|point| {
            let step = (point.first + point.last) as f64 / 2.0;
            let mean = point.sum / point.count as f64;
            // Rounds to the digits that are visible.
            let short = |value: f64| value as f32 as f64;
            let rounded = [mean, point.min, point.max]
                .map(short)
                .map(|value| format!("{value:.5e}").parse().unwrap_or(value));
            match point.count {
                1 => vec![step, rounded[0]],
                _ => [&[step], &rounded[..]].concat(),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_at_most_a_thousand_points_and_keeps_every_peak() {
        let mut curve = Curve::default();
        for step in 1..=123_457 {
            curve.add(step, if step == 70_001 { 50.0 } else { step as f64 * 1e-6 });
            assert!(curve.points.len() <= POINTS);
        }
        assert!(curve.points.len() > POINTS / 2, "{}", curve.points.len());
        assert_eq!(curve.points.iter().map(|point| point.count).sum::<usize>(), 123_457);
        assert_eq!(curve.points.iter().map(|point| point.max).fold(0.0, f64::max), 50.0);
        assert!(curve.points.windows(2).all(|two| two[0].last < two[1].first));
    }

    #[test]
    fn a_step_without_a_number_is_no_point() {
        let mut curve = Curve::default();
        for (step, value) in [(1, 0.5), (2, f64::NAN), (3, f64::INFINITY), (7, 0.123_456_789)] {
            curve.add(step, value);
        }
        assert_eq!(serde_json::to_string(&curve).unwrap(), "[[1.0,0.5],[7.0,0.123457]]");
        assert_eq!(curve.latest(), Some(0.123_456_789));
    }

    #[test]
    fn a_run_that_is_resumed_at_a_late_step_has_no_points_before_it() {
        let mut curve = Curve::default();
        (5_000_000..5_003_000).for_each(|step| curve.add(step, 1.0));
        let text = serde_json::to_value(&curve).unwrap();
        assert!(text[0][0].as_f64().unwrap() >= 5_000_000.0 && text.as_array().unwrap().len() <= POINTS);
        assert_eq!(text[0].as_array().unwrap().len(), 4);
    }
}
