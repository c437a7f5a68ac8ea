//! Forwards the reports of the trainer to the page.

use std::sync::Arc;

use serde_json::Value;

use super::live::LiveRun;
use crate::train::{Observer, StepReport};

/// An observer that updates the page and forwards everything to another observer.
pub struct UiObserver<'a> {
    live: Arc<LiveRun>,
    next: &'a mut dyn Observer,
}

impl<'a> UiObserver<'a> {
    /// Updates `live` and forwards to `next`.
    pub fn new(live: Arc<LiveRun>, next: &'a mut dyn Observer) -> UiObserver<'a> {
        UiObserver { live, next }
    }
}

impl Observer for UiObserver<'_> {
    fn phase(&mut self, name: &str) {
        self.live.phase(name);
        self.next.phase(name);
    }

    fn logged(&mut self, row: &Value) {
        self.live.logged(row);
        self.next.logged(row);
    }

    fn step(&mut self, report: &StepReport) {
        self.live.step(report);
        self.next.step(report);
    }

    fn warning(&mut self, text: &str) {
        self.live.warning(text);
        self.next.warning(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorded(Vec<String>);

    impl Observer for Recorded {
        fn phase(&mut self, name: &str) {
            self.0.push(format!("phase {name}"));
        }
        fn logged(&mut self, row: &Value) {
            self.0.push(format!("logged {}", row["step"]));
        }
        fn step(&mut self, report: &StepReport) {
            self.0.push(format!("step {}", report.step));
        }
        fn warning(&mut self, text: &str) {
            self.0.push(format!("warning {text}"));
        }
    }

    #[test]
    fn the_page_and_the_next_observer_receive_all_reports() {
        let live = Arc::new(LiveRun::new("run", Vec::new()));
        let mut recorded = Recorded::default();
        let mut observer = UiObserver::new(live.clone(), &mut recorded);
        observer.logged(&serde_json::json!({"step": 2, "loss": 0.25}));
        observer.phase("sampling");
        observer.step(&StepReport { step: 3, ..StepReport::default() });
        observer.warning("hot");
        assert_eq!(recorded.0, ["logged 2", "phase sampling", "step 3", "warning hot"]);
        let text = serde_json::to_value(live.snapshot()).unwrap();
        assert_eq!(
            (&text["phase"], &text["step"], &text["warnings"][0]["text"]),
            (&"sampling".into(), &3.into(), &"hot".into())
        );
        assert_eq!(text["curves"]["loss"], serde_json::json!([[2.0, 0.25]]));
    }
}
