//! Requests to a run while it is running, for example from the buttons of a page or an application that embeds it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Flags that a run checks between steps, and a request to cancel a step. They may be set at any time from any thread.
///
/// ```
/// let requests = oaif::train::Requests::default();
/// requests.ask_to_save();
/// assert!(requests.take_save() && !requests.take_save());
/// ```
#[derive(Debug, Default)]
pub struct Requests {
    /// Stop the run after the current step, with a checkpoint. It stays set.
    pub(crate) stop: AtomicBool,
    /// Take no further step while this is set, unless [`Requests::stop`] is set.
    pub(crate) pause: AtomicBool,
    /// Write a checkpoint after the current step. Writing it clears the flag, see [`Requests::take_save`].
    pub(crate) save: AtomicBool,
    cancel: AtomicBool,
    /// Steps that can be cancelled.
    cancellable: Mutex<Vec<Waker>>,
}

impl Requests {
    /// No requests.
    pub const fn new() -> Requests {
        let [stop, pause, save, cancel] = [const { AtomicBool::new(false) }; 4];
        Requests { stop, pause, save, cancel, cancellable: Mutex::new(Vec::new()) }
    }

    /// Requests the end of the run.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Requests a pause (`true`), or ends it (`false`).
    pub fn ask_to_pause(&self, pause: bool) {
        self.pause.store(pause, Ordering::Relaxed);
    }

    /// Requests a checkpoint.
    pub fn ask_to_save(&self) {
        self.save.store(true, Ordering::Relaxed);
    }

    /// Requests to cancel the current step, or else the next one. It ends with
    /// [`Error::Interrupted`](crate::Error::Interrupted), the policy is unchanged, and the step can be repeated. A step
    /// whose update was already submitted to the GPU is finished.
    pub fn ask_to_cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *self.cancellable());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until a cancellation is requested, and clears the request.
    pub(super) fn cancelled(&self) -> Cancelled<'_> {
        Cancelled { requests: self, waker: None }
    }

    fn cancellable(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.cancellable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the end of the run was requested.
    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the run must wait before its next step.
    pub fn pauses(&self) -> bool {
        self.pause.load(Ordering::Relaxed) && !self.stops()
    }

    /// Whether a checkpoint was requested and is not written yet.
    pub fn saves(&self) -> bool {
        self.save.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint was requested since the last call.
    pub fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }
}

/// See [`Requests::cancelled`].
pub(super) struct Cancelled<'r> {
    requests: &'r Requests,
    /// The waker that was registered.
    waker: Option<Waker>,
}

impl Cancelled<'_> {
    fn leave(&mut self) {
        if let Some(waker) = self.waker.take() {
            self.requests.cancellable().retain(|other| !other.will_wake(&waker));
        }
    }
}

impl Future for Cancelled<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.leave();
        let mut waiting = self.requests.cancellable();
        if self.requests.cancel.swap(false, Ordering::Relaxed) {
            return Poll::Ready(());
        }
        waiting.push(cx.waker().clone());
        drop(waiting);
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_not_cancelled_leaves_no_waker() {
        let requests = Requests::new();
        for _ in 0..3 {
            let mut waiting = Box::pin(requests.cancelled());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(
                waiting.as_mut().poll(&mut cx).is_pending() && waiting.as_mut().poll(&mut cx).is_pending()
            );
            assert_eq!(requests.cancellable().len(), 1);
        }
        assert!(requests.cancellable().is_empty());
        requests.ask_to_cancel();
        assert!(
            Box::pin(requests.cancelled()).as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        );
    }
}
