//! Waiting for a device's work.
//!
//! wgpu's callbacks wake whoever waits. They run while the device is polled: by the waiting thread where it may block (see
//! [`crate::task`]), else by the [`Poller`](super::poller::Poller). Whoever waits also submits what waits to be submitted (see
//! `outbox.rs`).
//!
//! A thread that blocks within wgpu until work is done keeps others from presenting a frame. On an application's device nobody
//! does: there a wait is a look at the device, again and again.

use std::sync::PoisonError;
use std::task::{Poll, Waker};

use super::device::Gpu;
#[cfg(not(target_arch = "wasm32"))]
use super::poller::{BETWEEN_LOOKS, wait_looking};
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

    /// Waits for a signal of the submitted work.
    ///
    /// # Errors
    /// [`crate::Error::DeviceLost`].
    pub(super) async fn until<T: Send + 'static>(&self, signal: &Signal<T>) -> Result<T> {
        self.watch(|waker| signal.take(waker)).await
    }

    /// Waits until nothing waits to be submitted any more.
    ///
    /// # Errors
    /// [`crate::Error::DeviceLost`].
    pub(super) async fn drained(&self) -> Result<()> {
        match self.inner.outbox.is_paced() {
            true => self.watch(|_| self.inner.outbox.jobs().is_empty().then_some(())).await,
            false => Ok(()),
        }
    }

    /// Polls the device, and submits what waits, until there is what is looked for.
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

    /// Has a future woken that found nothing yet; at once where its thread may block.
    fn be_woken(&self, waker: &Waker, blocks: bool) {
        match blocks {
            true => {
                #[cfg(not(target_arch = "wasm32"))]
                if self.inner.outbox.is_paced() {
                    std::thread::sleep(BETWEEN_LOOKS);
                    self.inner.activity.lock().unwrap().waited += BETWEEN_LOOKS;
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

    /// Waits for the device's work, in another thread.
    #[cfg(not(target_arch = "wasm32"))]
    fn waiter(&self) -> impl Fn() -> Result<(), wgpu::PollError> + Send + 'static {
        let (device, queue, paced) =
            (self.device().clone(), self.queue().clone(), self.inner.outbox.is_paced());
        move || match paced {
            true => wait_looking(&device, &queue),
            false => device.poll(wgpu::PollType::wait_indefinitely()).map(drop),
        }
    }

    /// Blocks until the oldest submit is done that was not waited for: not longer, so that its thread can see what else its
    /// future waits for. Not for a time either: where another thread submits meanwhile, such a wait makes wgpu-core 30 panic
    /// with callbacks in hand ("If the queue is empty, the current submission index …"), and who waits for them waits for ever.
    fn wait_for_oldest(&self) -> Result<()> {
        let oldest = self.inner.submitted.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        self.poll(wgpu::PollType::Wait { submission_index: oldest, timeout: None })
    }

    /// Blocks, for as long as copies within memory take, until the memory of uploads is free again.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn wait_for_uploads(&self) -> Result<()> {
        if !self.inner.outbox.is_paced() {
            return self.poll(wgpu::PollType::wait_indefinitely());
        }
        let started = std::time::Instant::now();
        let waited = self.polled(|| wait_looking(self.device(), self.queue()));
        self.inner.activity.lock().unwrap().waited += started.elapsed();
        waited
    }

    /// A browser frees it by itself.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn wait_for_uploads(&self) -> Result<()> {
        Ok(())
    }

    /// Waits until wgpu has told what it has against the calls so far: a browser tells it later.
    ///
    /// # Errors
    /// The first of it.
    pub(super) async fn settle(&self) -> Result<()> {
        self.inner.faults.settle().await
    }
}
