//! Standard error: messages and the progress of a run, as text or as JSON lines (`--log json`).

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::printable::{printable, printable_json};
use super::progress_line::{self, Bar};
use super::ranks;
#[cfg(feature = "http")]
use crate::error::size;
#[cfg(feature = "http")]
use crate::hub::{Repo, Watch};
use crate::train::{Observer, StepReport};

/// The progress bar on the screen, if there is one: messages are printed above it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);
/// The interval between two frames of the spinner, which is shown until the first step is done.
const TICK: Duration = Duration::from_millis(120);
/// The interval between two lines about the progress of a phase, where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// The format of standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines and a progress bar, for people
    #[default]
    Text,
    /// One JSON object per line, for programs
    Json,
}

/// The settings of messages on standard error.
#[derive(Clone, Copy, Debug)]
struct Log {
    format: Format,
    quiet: bool,
}

static LOG: Mutex<Log> = Mutex::new(Log { format: Format::Text, quiet: false });
/// The first use of the log, soon after the program started.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Sets the format of all later messages. With `quiet`, only warnings and errors are printed.
pub(crate) fn set_log(format: Format, quiet: bool) {
    LazyLock::force(&STARTED);
    *LOG.lock().unwrap_or_else(PoisonError::into_inner) = Log { format, quiet };
}

/// The format that the arguments ask for, found without parsing them: errors of parsing are printed in it too.
pub(crate) fn format_of(arguments: &[OsString]) -> Format {
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let is_json = words.iter().any(|word| word == "--log=json")
        || words.windows(2).any(|pair| pair[0] == "--log" && pair[1] == "json");
    if is_json { Format::Json } else { Format::Text }
}

/// Whether messages are text.
pub(crate) fn log_is_text() -> bool {
    log().format == Format::Text
}

fn log() -> Log {
    *LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn show(bar: Option<ProgressBar>) {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Prints a message; nothing with `--quiet`.
pub(crate) fn say(text: impl Display) {
    match log() {
        Log { quiet: true, .. } => {}
        Log { format: Format::Text, .. } => write(text),
        Log { format: Format::Json, .. } => {
            event("message", json!({"text": text.to_string().trim_start_matches("oaif: ")}))
        }
    }
}

/// Prints a warning.
pub(crate) fn warn(text: impl Display) {
    match log().format {
        Format::Text => write(format_args!("oaif: warning: {text}")),
        Format::Json => event("warning", json!({"text": text.to_string()})),
    }
}

/// Prints a question to a person at the terminal, as text, even with `--quiet` and `--log json`.
pub(crate) fn ask(text: impl Display) {
    write(text);
}

/// Prints the error that ends the program with this exit code.
pub(crate) fn fail(text: impl Display, exit_code: u8) {
    match log().format {
        Format::Text => write(format_args!("oaif: {text}")),
        Format::Json => event("error", json!({"text": text.to_string(), "exit_code": exit_code})),
    }
}

/// Prints an error that ends a rank, also of ranks that print nothing else.
pub(crate) fn fail_of_rank(rank: usize, text: &str) {
    let line = match (log().format, rank) {
        (Format::Text, 0) => printable(&format!("oaif: {text}")),
        (Format::Text, _) => printable(&format!("oaif: rank {rank}: {text}")),
        (Format::Json, _) => event_line("error", json!({"text": text, "rank": rank})),
    };
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Prints the address of a run's page, even with `--quiet`: without it nobody can open the page.
pub(crate) fn page(url: &str) {
    match log().format {
        Format::Text => write(format_args!("oaif: the run's page is {url}")),
        Format::Json => event("page", json!({"url": url})),
    }
}

/// Prints the summary at the end of a run: as lines, or as the fields of the event "end".
pub(crate) fn ended(text: &str, fields: Value) {
    match log() {
        Log { quiet: true, .. } => {}
        Log { format: Format::Text, .. } => say(text),
        Log { format: Format::Json, .. } => event("end", fields),
    }
}

/// Writes an event as a line of JSON.
fn event(name: &str, fields: Value) {
    write_line(event_line(name, fields));
}

/// A line of JSON: the event's name, the seconds since the program started, and its fields.
fn event_line(name: &str, fields: Value) -> String {
    let seconds = (STARTED.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    let mut line =
        Map::from_iter([("event".to_owned(), name.into()), ("seconds".to_owned(), seconds.into())]);
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    printable_json(&Value::Object(line).to_string())
}

/// Writes text to standard error.
fn write(text: impl Display) {
    write_line(printable(&text.to_string()));
}

/// Writes a line to standard error, above the progress bar if there is one. Write errors (standard error is closed, or its
/// disk is full) are ignored, since a lost message must not end a run.
fn write_line(line: String) {
    if ranks::is_silent() {
        return;
    }
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.println(line),
        None => drop(writeln!(io::stderr().lock(), "{line}")),
    }
}

/// What is printed at the start of a run.
#[derive(Default)]
pub struct Facts {
    /// Names and values, for people.
    pub lines: Vec<(String, String)>,
    /// The fields of the event "start".
    pub fields: Map<String, Value>,
}

impl Facts {
    /// Adds a line for people.
    pub fn line(&mut self, name: &str, value: String) {
        self.lines.push((name.to_owned(), value));
    }

    /// Adds a field of the event.
    pub fn field(&mut self, key: &str, value: Value) {
        self.fields.insert(key.to_owned(), value);
    }
}

/// Prints the progress of a run to standard error: in a terminal as one line that is redrawn, otherwise as a line per step.
pub struct Console {
    bar: ProgressBar,
    /// The facts of the run. They are printed once the run has begun, so that a run that fails before prints only its
    /// error.
    start: Option<Facts>,
    phase: String,
    /// The time of the last line about the progress of a phase.
    line: Instant,
    last: Option<StepReport>,
}

impl Console {
    /// Shows a spinner immediately.
    pub fn new() -> Console {
        let Log { format, quiet, .. } = log();
        let bar = match ranks::is_silent() || quiet || format == Format::Json {
            true => ProgressBar::hidden(),
            false => ProgressBar::new_spinner(),
        };
        bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg}").expect("a valid template"));
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
            show(Some(bar.clone()));
        }
        Console { bar, start: None, phase: String::new(), line: Instant::now(), last: None }
    }

    /// Sets the facts of the run, which are printed as soon as it has begun.
    pub fn begins(&mut self, facts: Facts) {
        self.start = Some(facts);
    }

    /// Prints that `done` of `total` parts of a phase are done, where a command has no steps: as the event "progress", on
    /// the line of the terminal, or without a terminal as a line at most every ten seconds.
    pub fn progress(&mut self, phase: &str, done: usize, total: usize) {
        let text = format!("{phase}: {done} of {total}");
        if self.phase == text {
            return;
        }
        self.phase = text;
        match log() {
            Log { quiet: true, .. } => {}
            Log { format: Format::Json, .. } => {
                event("progress", json!({"phase": phase, "done": done, "total": total}));
            }
            Log { format: Format::Text, .. } if self.bar.is_hidden() => {
                if self.line.elapsed() >= BETWEEN_LINES {
                    self.line = Instant::now();
                    say(&self.phase);
                }
            }
            Log { format: Format::Text, .. } => self.draw(),
        }
    }

    /// Whether a step was done.
    pub fn stepped(&self) -> bool {
        self.last.is_some()
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.step >= last.total_steps)
    }

    /// Stops updating the bar. It stays on the screen if a step was done.
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

    /// Removes the bar from the screen.
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

/// Removes the bar unless [`Console::end`] was called.
impl Drop for Console {
    fn drop(&mut self) {
        if !self.bar.is_finished() {
            self.clear();
        }
    }
}

/// Prints the progress of a download to standard error: a line with its size and, in a terminal, a bar below it.
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
            _ => format!(", {} of it already downloaded", size(present)),
        };
        let files = if files == 1 { "1 file".into() } else { format!("{files} files") };
        say(format_args!("oaif: downloading {repo}: {files}, {}{left}", size(bytes)));
        let template = "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        let bar = match log() {
            Log { format: Format::Text, quiet: false, .. } => ProgressBar::new(bytes),
            _ => ProgressBar::hidden(),
        };
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
        warn(text);
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
        if let Some(facts) = self.start.take() {
            match log() {
                Log { quiet: true, .. } => {}
                Log { format: Format::Text, .. } => {
                    facts.lines.iter().for_each(|(name, fact)| say(format_args!("{name:<14}{fact}")));
                }
                Log { format: Format::Json, .. } => event("start", Value::Object(facts.fields)),
            }
        }
        if let Log { format: Format::Json, quiet: false } = log() {
            event("phase", json!({"name": name}));
        }
        self.phase = name.to_owned();
        self.draw();
    }

    fn step(&mut self, report: &StepReport) {
        self.last = Some(StepReport { pairs: Vec::new(), ..report.clone() });
        self.bar.disable_steady_tick();
        match log().format {
            Format::Json if !log().quiet => event("step", progress_line::fields_of(report)),
            Format::Json => {}
            Format::Text => {
                if self.bar.is_hidden() {
                    say(progress_line::plain(report));
                }
                progress_line::evaluation(report).iter().for_each(say);
            }
        }
        self.draw();
    }

    fn warning(&mut self, text: &str) {
        warn(text);
    }
}
