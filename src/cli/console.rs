//! What is said on standard error: lines, and a run's progress.

use std::fmt::Display;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::printable::printable;
use crate::train::{Observer, StepEvent};

/// Writes a line to standard error. Where that cannot be written to (it is closed, its disk is full), the line is lost
/// and the program goes on: no message is worth a run.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(&line.to_string()));
}

/// A progress bar on standard error; plain lines where that is no terminal.
pub struct Console {
    bar: ProgressBar,
    /// Whether a step was done.
    stepped: bool,
}

impl Console {
    /// A bar that is shown with the first step.
    pub fn new() -> Console {
        let bar = ProgressBar::no_length();
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len} {msg}");
        bar.set_style(style.expect("a valid template"));
        Console { bar, stepped: false }
    }

    /// Whether a step was done.
    pub fn stepped(&self) -> bool {
        self.stepped
    }

    /// Leaves the bar as it is.
    pub fn finish(&self) {
        self.bar.finish();
    }

    /// Shows a line above the bar.
    pub fn line(&self, text: &str) {
        match self.bar.is_hidden() {
            true => say(text),
            false => self.bar.println(printable(text)),
        }
    }
}

impl Observer for Console {
    fn step(&mut self, e: &StepEvent) {
        self.stepped = true;
        let optional =
            |name: &str, value: Option<f64>| value.map_or(String::new(), |v| format!("  {name} {v:.3}"));
        let left = e.seconds_left as u64;
        let message = format!(
            "loss {:.4}{}{}  {:.0} tokens/s  {}:{:02}:{:02} left",
            e.loss,
            optional("margin", e.margin),
            optional("judge 1st", e.judge_win),
            e.tokens_per_second,
            left / 3600,
            left / 60 % 60,
            left % 60
        );
        if self.bar.is_hidden() {
            say(format_args!("step {}/{}  {message}", e.step, e.total_steps));
        }
        self.bar.set_length(e.total_steps as u64);
        self.bar.set_position(e.step as u64);
        self.bar.set_message(message);
    }

    fn warning(&mut self, text: &str) {
        self.line(&format!("oaif: warning: {text}"));
    }
}
