//! What is said on standard error: lines, and a run's progress.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::printable::printable;
use super::progress_line::{self, Bar};
use super::ranks;
#[cfg(feature = "http")]
use crate::error::size;
#[cfg(feature = "http")]
use crate::hub::{Repo, Watch};
use crate::train::{Observer, StepReport};

/// The bar on the screen, if there is one: lines go above it, whoever says them.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);
/// Between two pictures of the wheel that turns while a run has no step yet.
const TICK: Duration = Duration::from_millis(120);

fn show(bar: Option<ProgressBar>) {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Writes a line to standard error, above the bar where one is shown. Where that cannot be written to (it is closed, its
/// disk is full), the line is lost and the program goes on: no message is worth a run.
pub(crate) fn say(line: impl Display) {
    if ranks::is_silent() {
        return;
    }
    let text = printable(&line.to_string());
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.println(text),
        None => drop(writeln!(io::stderr().lock(), "{text}")),
    }
}

/// A run's progress on standard error: one line that stays in its place on a terminal, plain lines elsewhere.
pub struct Console {
    bar: ProgressBar,
    /// What is said once the run has begun: a run that cannot begin is an error alone.
    start: Option<String>,
    phase: String,
    last: Option<StepReport>,
}

impl Console {
    /// Shows at once that something is going on.
    pub fn new() -> Console {
        let bar = if ranks::is_silent() { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg}").expect("a valid template"));
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
            show(Some(bar.clone()));
        }
        Console { bar, start: None, phase: String::new(), last: None }
    }

    /// What the run is, to be said as soon as it has begun.
    pub fn begins(&mut self, start: String) {
        self.start = Some(start);
    }

    /// Whether a step was done.
    pub fn stepped(&self) -> bool {
        self.last.is_some()
    }

    /// Leaves the bar where it stands, for good.
    pub fn end(&mut self) {
        show(None);
        match &self.last {
            Some(last) if last.step < last.total_steps => {
                self.phase = "stopped".into();
                self.draw();
                self.bar.abandon();
            }
            Some(_) => {
                self.phase.clear();
                self.draw();
                self.bar.abandon();
            }
            None => self.bar.finish_and_clear(),
        }
    }

    /// Takes the bar off the screen, for good.
    pub fn clear(&mut self) {
        show(None);
        self.bar.finish_and_clear();
    }

    fn draw(&self) {
        let Some(last) = &self.last else {
            self.bar.set_message(self.phase.clone());
            return;
        };
        let Bar { template, message } = progress_line::of(last, &self.phase, width());
        self.bar.set_style(ProgressStyle::with_template(&template).expect("a valid template"));
        self.bar.set_length(last.total_steps as u64);
        self.bar.set_position(last.step as u64);
        self.bar.set_message(message);
    }
}

/// Nothing stays on the screen of what did not come to a step.
impl Drop for Console {
    fn drop(&mut self) {
        if !self.bar.is_finished() {
            self.clear();
        }
    }
}

/// A download on standard error: a line that says how large it is, and on a terminal a bar below it.
#[cfg(feature = "http")]
pub struct Download {
    bar: Option<ProgressBar>,
}

#[cfg(feature = "http")]
impl Download {
    pub fn new() -> Download {
        Download { bar: None }
    }
}

#[cfg(feature = "http")]
impl Watch for Download {
    fn begins(&mut self, repo: &Repo, files: usize, bytes: u64, present: u64) {
        let left = match present {
            0 => String::new(),
            _ => format!(", of which {} are here already", size(present)),
        };
        let files = if files == 1 { "1 file".into() } else { format!("{files} files") };
        say(format_args!("oaif: downloading {repo}: {files}, {}{left}", size(bytes)));
        let template = "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        let bar = ProgressBar::new(bytes);
        bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
        bar.set_position(present);
        bar.reset_eta();
        if !bar.is_hidden() {
            show(Some(bar.clone()));
        }
        self.bar = Some(bar);
    }

    fn received(&mut self, bytes: u64) {
        self.bar.iter().for_each(|bar| bar.inc(bytes));
    }

    fn dropped(&mut self, bytes: u64) {
        self.bar.iter().for_each(|bar| bar.dec(bytes));
    }

    fn warning(&mut self, text: &str) {
        say(format_args!("oaif: warning: {text}"));
    }

    fn ends(&mut self) {
        if let Some(bar) = self.bar.take() {
            show(None);
            bar.finish_and_clear();
        }
    }
}

/// Columns of the terminal.
fn width() -> usize {
    ::console::Term::stderr().size().1.into()
}

impl Observer for Console {
    fn phase(&mut self, name: &str) {
        if let Some(start) = self.start.take() {
            say(start);
        }
        self.phase = name.to_owned();
        self.draw();
    }

    fn step(&mut self, report: &StepReport) {
        self.last = Some(StepReport { pairs: Vec::new(), ..report.clone() });
        self.bar.disable_steady_tick();
        if self.bar.is_hidden() {
            say(progress_line::plain(report));
        }
        self.draw();
    }

    fn warning(&mut self, text: &str) {
        say(format_args!("oaif: warning: {text}"));
    }
}
