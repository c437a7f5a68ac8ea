//! Waiting for the work of a device.
//!
//! wgpu's callbacks wake the waiting task. They run when the device is polled: by the waiting thread if it may block
//! (see [`crate::task`]), otherwise by the [`Poller`](super::poller::Poller). A waiting task also submits jobs from the
//! queue (see `outbox.rs`).
//!
//! A thread that blocks within wgpu until work is done keeps other threads from presenting a frame. So on an
//! application's device no thread blocks: waiting means polling repeatedly.

use std::sync::PoisonError;
use std::task::{Poll, Waker};

use super::device::Gpu;
#[cfg(not(target_arch = "wasm32"))]
use super::poller::{POLL_INTERVAL, wait_polling};
use crate::error::Result;
use crate::signal::Signal;
use crate::task::blocking;

impl Gpu {
    /// Waits until everything submitted has run.
    pub async fn idle(&self) -> Result<()> {
        if !self.is_measuring() {
            self.drained().await?;
            let (done, set) = Signal::new();
            self.queue().on_submitted_work_done(move || set(()));
            self.until(&done).await?;
        }
        self.settle().await?;
        self.check("the submitted work")
    }

    /// Waits for a signal from submitted work.
    ///
    /// # Errors
    /// [`crate::Error::DeviceLost`].
    pub(super) async fn until<T: Send + 'static>(&self, signal: &Signal<T>) -> Result<T> {
        self.watch(|waker| signal.take(waker)).await
    }

    /// Waits until the queue of jobs is empty.
    ///
    /// # Errors
    /// [`crate::Error::DeviceLost`].
    pub(super) async fn drained(&self) -> Result<()> {
        match self.inner.outbox.is_paced() {
            true => self.watch(|_| self.inner.outbox.jobs().is_empty().then_some(())).await,
            false => Ok(()),
        }
    }

    /// Polls the device and submits jobs until `look` returns a value.
    async fn watch<T>(&self, mut look: impl FnMut(&Waker) -> Option<T>) -> Result<T> {
        std::future::poll_fn(|cx| {
            self.inner.outbox.wake_when_room(cx.waker());
            self.advance()?;
            if let Some(value) = look(cx.waker()) {
                return Poll::Ready(Ok(value));
            }
            let blocks = blocking::is_allowed();
            let polled = match blocks && !self.inner.outbox.is_paced() {
                true => self.wait_for_oldest(),
                false => self.poll(wgpu::PollType::Poll),
            };
            self.advance()?;
            match (look(cx.waker()), polled) {
                (Some(value), _) => Poll::Ready(Ok(value)),
                (None, Err(error)) => Poll::Ready(Err(error)),
                (None, Ok(())) => {
                    self.be_woken(cx.waker(), blocks);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Arranges for a pending future to be woken; immediately if its thread may block.
    fn be_woken(&self, waker: &Waker, blocks: bool) {
        match blocks {
            true => {
                #[cfg(not(target_arch = "wasm32"))]
                if self.inner.outbox.is_paced() {
                    std::thread::sleep(POLL_INTERVAL);
                    self.inner.activity.lock().unwrap().waited += POLL_INTERVAL;
                }
                waker.wake_by_ref();
            }
            #[cfg(not(target_arch = "wasm32"))]
            false => self.inner.poller.wake_later(|| self.waiter(), waker),
            // A browser's event loop polls the device by itself.
            #[cfg(target_arch = "wasm32")]
            false => {}
        }
    }

    /// Returns a function that waits for the device's work on another thread.
    #[cfg(not(target_arch = "wasm32"))]
    fn waiter(&self) -> impl Fn() -> Result<(), wgpu::PollError> + Send + 'static {
        let (device, queue, paced) =
            (self.device().clone(), self.queue().clone(), self.inner.outbox.is_paced());
        move || match paced {
            true => wait_polling(&device, &queue),
            false => device.poll(wgpu::PollType::wait_indefinitely()).map(drop),
        }
    }

    /// Blocks until the oldest submit that was not waited for is done. It does not wait longer, so that the thread can also
    /// poll whatever else its future waits for. The wait has no timeout: if another thread submits meanwhile, a wait with a
    /// timeout makes wgpu-core 30 panic before it runs pending callbacks ("If the queue is empty, the current submission
    /// index …"), and the tasks that wait for them hang.
    fn wait_for_oldest(&self) -> Result<()> {
        let oldest = self.inner.submitted.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        self.poll(wgpu::PollType::Wait { submission_index: oldest, timeout: None })
    }

    /// Blocks until the staging memory of uploads is free again, about as long as the copies take.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn wait_for_uploads(&self) -> Result<()> {
        if !self.inner.outbox.is_paced() {
            return self.poll(wgpu::PollType::wait_indefinitely());
        }
        let started = std::time::Instant::now();
        let waited = self.polled(|| wait_polling(self.device(), self.queue()));
        self.inner.activity.lock().unwrap().waited += started.elapsed();
        waited
    }

    /// A browser frees it on its own.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn wait_for_uploads(&self) -> Result<()> {
        Ok(())
    }

    /// Waits for the errors of all calls so far, which a browser reports later.
    ///
    /// # Errors
    /// The first error among them.
    pub(super) async fn settle(&self) -> Result<()> {
        self.inner.faults.settle().await
    }
}
