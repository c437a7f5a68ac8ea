//! What the worker threads tell the window.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use eframe::egui;

/// A window has no room for more errors.
const MOST_ERRORS: usize = 4;

/// All that the window shows, except the pair, which is on the desk.
#[derive(Default)]
pub struct Told {
    pub gpu: String,
    /// What the learner does now.
    pub phase: String,
    pub curve: Vec<Point>,
    /// Steps that were taken.
    pub steps: usize,
    /// Bytes that the model and its training hold of the device's memory.
    pub memory: u64,
    pub chat: Vec<Exchange>,
    /// Whether the chat can be used.
    pub chat_ready: bool,
    /// The last thing that was done on request.
    pub note: Option<String>,
    /// Why the training or the chat has ended or has refused something, a sentence each.
    pub errors: Vec<String>,
    /// Whether nothing is learnt any more.
    pub ended: bool,
    /// Why the device was lost.
    pub lost: Option<String>,
}

/// A step in the curves.
pub struct Point {
    pub loss: f64,
    pub margin: Option<f64>,
}

/// A prompt of the chat and as much of its answer as is there.
pub struct Exchange {
    pub prompt: String,
    pub answer: String,
    pub done: bool,
}

/// [`Told`], and the window that is drawn again after each change of it.
pub struct Shared {
    told: Mutex<Told>,
    window: egui::Context,
}

impl Shared {
    pub fn new(window: egui::Context) -> Shared {
        Shared { told: Mutex::default(), window }
    }

    pub fn read(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and has the window drawn.
    pub fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.read());
        self.window.request_repaint();
    }

    pub fn phase(&self, phase: &str) {
        self.tell(|told| phase.clone_into(&mut told.phase));
    }

    /// Has the window drawn.
    pub fn redraw(&self) {
        self.window.request_repaint();
    }

    /// Does a thread's work, and tells of an error or a panic.
    pub fn work(&self, name: &str, work: impl FnOnce() -> oaif::Result<()>) {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.error(error),
            Err(_) => {
                self.error(format!("the {name} has failed by a mistake of the program: see the terminal"))
            }
        }
    }

    /// Adds an error, once.
    pub fn error(&self, error: impl std::fmt::Display) {
        let error = sentence(&error.to_string());
        self.tell(|told| {
            if !told.errors.contains(&error) && told.errors.len() < MOST_ERRORS {
                told.errors.push(error);
            }
        });
    }
}

/// An error's text as a sentence.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
