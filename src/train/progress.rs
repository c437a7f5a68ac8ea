//! How the library reports its progress. It prints nothing itself.

use serde_json::Value;

use super::report::StepReport;

/// Receives the progress of a run: for a progress bar, the window of an application, or a test.
pub trait Observer: Send {
    /// A phase of a step starts: "sampling", "judging", "learning", "saving".
    fn phase(&mut self, _name: &str) {}

    /// A row of `metrics.jsonl` of a step that was done before the run was resumed.
    fn logged(&mut self, _row: &Value) {}

    /// A step is done.
    fn step(&mut self, _report: &StepReport) {}

    /// A warning for the user. The run continues.
    fn warning(&mut self, _text: &str) {}
}

/// Ignores all reports.
impl Observer for () {}

/// The weight of the last step in the mean time per step.
const NEWEST: f64 = 0.1;

/// The time per step: an exponential moving average without the first step.
#[derive(Debug, Default)]
pub(super) struct Pace {
    steps: usize,
    mean: f64,
}

impl Pace {
    /// Adds a step that took `seconds`. Returns the estimate for the steps that are left.
    pub fn seconds_left(&mut self, seconds: f64, steps_left: usize) -> Option<f64> {
        if self.steps > 0 {
            // The plain mean until there are enough steps.
            let weight = NEWEST.max(1.0 / self.steps as f64);
            self.mean += weight * (seconds - self.mean);
        }
        self.steps += 1;
        match (steps_left, self.steps) {
            (0, _) => Some(0.0),
            (_, 1) => None,
            (left, _) => Some(left as f64 * self.mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_leaves_out_the_first_step_and_follows_the_last_ones() {
        let mut pace = Pace::default();
        assert_eq!(pace.seconds_left(100.0, 9), None);
        assert_eq!(pace.seconds_left(2.0, 8), Some(16.0));
        assert_eq!(pace.seconds_left(4.0, 7), Some(21.0));
        for _ in 0..100 {
            pace.seconds_left(1.0, 5);
        }
        assert!((pace.seconds_left(1.0, 10).unwrap() - 10.0).abs() < 0.01);
        assert_eq!(pace.seconds_left(1.0, 0), Some(0.0));
        assert_eq!(Pace::default().seconds_left(5.0, 0), Some(0.0), "a run of one step is done");
    }
}
