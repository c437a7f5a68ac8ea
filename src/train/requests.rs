//! What somebody beside a run asks of it while it goes on: a page's buttons, a program that has it as a part.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Flags that a run looks at between steps, and a request to give a step up; anybody may set them at any time.
///
/// ```
/// let requests = oaif::train::Requests::default();
/// requests.ask_to_save();
/// assert!(requests.take_save() && !requests.take_save());
/// ```
#[derive(Debug, Default)]
pub struct Requests {
    /// End the run after the current step, with a checkpoint. It stays set.
    pub(crate) stop: AtomicBool,
    /// Take no further step while this is set, unless [`Requests::stop`] is.
    pub(crate) pause: AtomicBool,
    /// Write a checkpoint after the current step. Whoever writes it clears the flag, see [`Requests::take_save`].
    pub(crate) save: AtomicBool,
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
        let waiting = std::mem::take(&mut *self.cancellable());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until somebody asks to give the step up; the request is taken then.
    pub(super) fn cancelled(&self) -> Cancelled<'_> {
        Cancelled { requests: self, waker: None }
    }

    fn cancellable(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.cancellable.lock().unwrap_or_else(PoisonError::into_inner)
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

/// See [`Requests::cancelled`].
pub(super) struct Cancelled<'r> {
    requests: &'r Requests,
    /// Who waits.
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
    fn a_step_that_was_not_cancelled_leaves_nobody_to_be_woken() {
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
