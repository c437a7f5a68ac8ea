//! How the library tells what it is doing: it prints nothing itself.

use serde_json::Value;

use super::report::StepReport;

/// Whoever wants to know how a run is going: the program's progress bar, an application's window, a test.
pub trait Observer: Send {
    /// A part of a step begins: "sampling", "judging", "learning", "saving".
    fn phase(&mut self, _name: &str) {}

    /// A step that was done before this run was resumed: its row of `metrics.jsonl`.
    fn logged(&mut self, _row: &Value) {}

    /// A step is done.
    fn step(&mut self, _report: &StepReport) {}

    /// Something that the user should know, in a sentence, though the run goes on.
    fn warning(&mut self, _text: &str) {}
}

/// Nobody.
impl Observer for () {}

/// How much of the mean time of a step is the last one's.
const NEWEST: f64 = 0.1;

/// How long a step takes: an exponential mean, without the first.
#[derive(Debug, Default)]
pub(super) struct Pace {
    steps: usize,
    mean: f64,
}

impl Pace {
    /// Another step has taken so many seconds; so many will all the others take.
    pub fn seconds_left(&mut self, seconds: f64, steps_left: usize) -> Option<f64> {
        if self.steps > 0 {
            // A mean of all until there are enough.
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
