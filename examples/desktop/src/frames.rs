//! Measures frame times: from the start of one frame to the start of the next.

use std::time::{Duration, Instant};

/// Frames within this time after the first are not counted, because the window is still opening.
const START: Duration = Duration::from_secs(2);
/// The number of longest frames in the report.
const LONGEST: usize = 5;

/// Frame times, with the phase of the learner in each frame.
#[derive(Default)]
pub struct Frames {
    first: Option<Instant>,
    last: Option<Instant>,
    frames: Vec<(Duration, String)>,
}

impl Frames {
    /// Records that a frame begins, which ends the previous one.
    pub fn begin(&mut self, phase: &str) {
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        if let Some(last) = self.last.replace(now)
            && last - first >= START
        {
            self.frames.push((now - last, phase.to_owned()));
        }
    }

    /// The median, the 99th percentile, and the longest frames in milliseconds.
    pub fn report(mut self) -> String {
        self.frames.sort_by_key(|frame| frame.0);
        let Some(last) = self.frames.len().checked_sub(1) else { return "no frames were counted".into() };
        let ms = |i: usize| self.frames[i].0.as_secs_f64() * 1e3;
        let longest: Vec<String> =
            (0..=last).rev().take(LONGEST).map(|i| format!("{:.1} ({})", ms(i), self.frames[i].1)).collect();
        format!(
            "{} frames, ms: median {:.1}, 99th percentile {:.1}, longest {}",
            last + 1,
            ms(last / 2),
            ms(last * 99 / 100),
            longest.join(", ")
        )
    }
}
