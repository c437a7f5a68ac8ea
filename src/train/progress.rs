//! How the library tells what it is doing: it prints nothing itself.

/// Whoever wants to know how a run is going: the program's progress bar, an application's window, a test.
pub trait Observer {
    /// A part of the run begins, such as "loading the model".
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
    /// To the end of the run, as far as can be told.
    pub seconds_left: f64,
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
        seconds_left: 3.0,
    };

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
