//! The state that the worker threads share with the window.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use eframe::egui;

/// The maximum number of errors shown in the window.
const MOST_ERRORS: usize = 4;

/// Everything that the window shows, except the pair, which is on the desk.
#[derive(Default)]
pub struct Status {
    pub gpu: String,
    /// The current phase of the learner.
    pub phase: String,
    pub curve: Vec<Point>,
    /// The number of steps taken.
    pub steps: usize,
    /// GPU memory of the model and its training in bytes.
    pub memory: u64,
    pub chat: Vec<Exchange>,
    /// Whether the chat is ready.
    pub chat_ready: bool,
    /// The result of the last request.
    pub note: Option<String>,
    /// Errors of the training or the chat, one sentence each.
    pub errors: Vec<String>,
    /// Whether the training has ended.
    pub ended: bool,
    /// Why the device was lost.
    pub lost: Option<String>,
}

/// A point of the curves.
pub struct Point {
    pub loss: f64,
    pub margin: Option<f64>,
}

/// A prompt of the chat and the response so far.
pub struct Exchange {
    pub prompt: String,
    pub answer: String,
    pub done: bool,
}

/// [`Status`], and the window, which is redrawn after each change.
pub struct Shared {
    status: Mutex<Status>,
    window: egui::Context,
}

impl Shared {
    pub fn new(window: egui::Context) -> Shared {
        Shared { status: Mutex::default(), window }
    }

    pub fn read(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and redraws the window.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.read());
        self.window.request_repaint();
    }

    pub fn phase(&self, phase: &str) {
        self.update(|status| phase.clone_into(&mut status.phase));
    }

    /// Redraws the window.
    pub fn redraw(&self) {
        self.window.request_repaint();
    }

    /// Runs a thread's work and reports an error or a panic.
    pub fn work(&self, name: &str, work: impl FnOnce() -> oaif::Result<()>) {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.error(error),
            Err(_) => self.error(format!("the {name} thread panicked, which is a bug: see the terminal")),
        }
    }

    /// Adds an error, unless it is there already.
    pub fn error(&self, error: impl std::fmt::Display) {
        let error = sentence(&error.to_string());
        self.update(|status| {
            if !status.errors.contains(&error) && status.errors.len() < MOST_ERRORS {
                status.errors.push(error);
            }
        });
    }
}

/// An error message as a sentence.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
