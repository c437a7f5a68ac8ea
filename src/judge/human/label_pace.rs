//! How fast a person labels.

use std::collections::VecDeque;
use web_time::{Duration, Instant};

/// The number of recent labels that the pace is computed from.
const LABELS: usize = 20;
/// A longer gap between two labels is a break and is not counted.
const BREAK: Duration = Duration::from_secs(5 * 60);

/// The times of the latest labels.
#[derive(Debug, Default)]
pub struct LabelPace(VecDeque<Instant>);

impl LabelPace {
    /// Records a label.
    pub fn label(&mut self, at: Instant) {
        self.0.push_back(at);
        if self.0.len() > LABELS {
            self.0.pop_front();
        }
    }

    /// Removes the latest label.
    pub fn undo(&mut self) {
        self.0.pop_back();
    }

    /// Labels per minute, without breaks; `None` until two were given.
    pub fn per_minute(&self) -> Option<f64> {
        let gaps = self.0.iter().zip(self.0.iter().skip(1)).map(|(a, b)| b.duration_since(*a));
        let gaps: Vec<f64> = gaps.filter(|gap| *gap < BREAK).map(|gap| gap.as_secs_f64()).collect();
        let seconds: f64 = gaps.iter().sum();
        (seconds > 0.0).then(|| 60.0 * gaps.len() as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_latest_labels_without_breaks() {
        let mut pace = LabelPace::default();
        let mut now = Instant::now();
        let mut after = |pace: &mut LabelPace, seconds| {
            now += Duration::from_secs(seconds);
            pace.label(now);
        };
        after(&mut pace, 0);
        assert_eq!(pace.per_minute(), None);
        (0..100).for_each(|_| after(&mut pace, 30));
        (0..10).for_each(|_| after(&mut pace, 10));
        after(&mut pace, 3_600);
        (0..9).for_each(|_| after(&mut pace, 10));
        assert_eq!(pace.per_minute(), Some(6.0));
        pace.undo();
        assert_eq!(pace.per_minute(), Some(6.0));
    }
}
