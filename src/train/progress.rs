//! How the library tells what it is doing: it prints nothing itself.

/// Whoever wants to know how a run is going: the program's progress bar, an application's window, a test.
pub trait Observer {
    /// A part of a step begins: "sampling", "annotating", "learning", "saving".
    fn phase(&mut self, _name: &str) {}

    /// A step is done.
    fn step(&mut self, _event: &StepEvent) {}

    /// Something that the user should know, in a sentence, though the run goes on.
    fn warning(&mut self, _text: &str) {}
}

/// Nobody.
impl Observer for () {}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepEvent {
    /// Which one, from 1.
    pub step: usize,
    /// The last one.
    pub total_steps: usize,
    /// The loss, a mean over the batch; `None` for a step without a pair to learn from.
    pub loss: Option<f64>,
    /// The mean difference of the rewards of chosen and rejected; `None` where there are no pairs.
    pub margin: Option<f64>,
    /// The share of the decided pairs in which the annotator preferred the first response; `None` where no
    /// annotator was asked or none was decided.
    pub judge_win: Option<f64>,
    /// Tokens sampled and trained on, a second.
    pub tokens_per_second: f64,
    /// To the end of the run; `None` after the first step, which says nothing of the others: kernels are compiled in it.
    pub seconds_left: Option<f64>,
}

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

    const EVENT: StepEvent = StepEvent {
        step: 1,
        total_steps: 2,
        loss: Some(0.7),
        margin: None,
        judge_win: Some(0.5),
        tokens_per_second: 100.0,
        seconds_left: Some(3.0),
    };

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

    #[derive(Default)]
    struct Steps(Vec<usize>);

    impl Observer for Steps {
        fn step(&mut self, event: &StepEvent) {
            self.0.push(event.step);
        }
    }

    #[test]
    fn an_observer_hears_what_it_cares_about_and_may_ignore_the_rest() {
        fn run(observer: &mut dyn Observer) {
            observer.phase("training");
            observer.step(&EVENT);
            observer.warning("one prompt is too long");
        }
        let mut steps = Steps::default();
        run(&mut steps);
        run(&mut ());
        assert_eq!(steps.0, [1]);
    }
}
