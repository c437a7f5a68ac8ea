//! What somebody beside a run asks of it while it goes on: a page's buttons, a program that has it as a part.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Flags that a run looks at between steps, and a request to give a step up; anybody may set them at any time.
///
/// ```
/// let requests = oaif::unstable::train::Requests::default();
/// requests.ask_to_save();
/// assert!(requests.take_save() && !requests.take_save());
/// ```
#[derive(Debug, Default)]
pub struct Requests {
    /// End the run after the current step, with a checkpoint. It stays set.
    pub stop: AtomicBool,
    /// Take no further step while this is set, unless [`Requests::stop`] is.
    pub pause: AtomicBool,
    /// Write a checkpoint after the current step. Whoever writes it clears the flag, see [`Requests::take_save`].
    pub save: AtomicBool,
    cancel: AtomicBool,
    /// Steps that can be given up.
    cancellable: Mutex<Vec<Waker>>,
}

impl Requests {
    /// Nothing is asked for.
    pub const fn new() -> Requests {
        let [stop, pause, save, cancel] = [const { AtomicBool::new(false) }; 4];
        Requests { stop, pause, save, cancel, cancellable: Mutex::new(Vec::new()) }
    }

    /// Asks for the end of the run.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Asks for a pause (`true`), or that the run goes on (`false`).
    pub fn ask_to_pause(&self, pause: bool) {
        self.pause.store(pause, Ordering::Relaxed);
    }

    /// Asks for a checkpoint.
    pub fn ask_to_save(&self) {
        self.save.store(true, Ordering::Relaxed);
    }

    /// Asks to give the step up that is under way, or else the next one: it ends with [`Error::Interrupted`](crate::Error::Interrupted),
    /// the policy is as it was before, and the step can be taken again. A step whose update is with the GPU is finished.
    pub fn ask_to_cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
        let mut waiting = self.cancellable.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.drain(..).for_each(Waker::wake);
    }

    /// Waits until somebody asks to give the step up; the request is taken then.
    pub(super) async fn cancelled(&self) {
        std::future::poll_fn(|cx| {
            let mut waiting = self.cancellable.lock().unwrap_or_else(PoisonError::into_inner);
            if self.cancel.swap(false, Ordering::Relaxed) {
                return Poll::Ready(());
            }
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Whether the end was asked for.
    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the run shall wait before its next step.
    pub fn pauses(&self) -> bool {
        self.pause.load(Ordering::Relaxed) && !self.stops()
    }

    /// Whether a checkpoint was asked for and is not written yet.
    pub fn saves(&self) -> bool {
        self.save.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }
}
