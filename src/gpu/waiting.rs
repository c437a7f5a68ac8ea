//! Waiting for a device's work.
//!
//! wgpu's callbacks wake whoever waits. They run while the device is polled: by the waiting thread where it may block (see
//! [`crate::task`]), else by the [`Poller`](super::poller::Poller). Whoever waits also submits what waits to be submitted (see
//! `outbox.rs`).
//!
//! A thread that blocks within wgpu until work is done keeps others from presenting a frame. On an application's device nobody
//! does: there a wait is a look at the device, again and again.

#[cfg(not(target_arch = "wasm32"))]
use std::sync::PoisonError;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::device::Gpu;
#[cfg(not(target_arch = "wasm32"))]
use super::poller::wait_looking;
use super::signal::Signal;
use crate::error::Result;
use crate::task::blocking;

/// How long a thread that may block does so before it looks at what else its future waits for.
const WAIT_A_WHILE: wgpu::PollType =
    wgpu::PollType::Wait { submission_index: None, timeout: Some(Duration::from_millis(4)) };

/// Time between two looks at an application's device: a part of what a submit takes, much more than a look takes.
#[cfg(not(target_arch = "wasm32"))]
const BETWEEN_LOOKS: Duration = Duration::from_micros(300);

/// A look at an application's device, and a pause.
#[cfg(not(target_arch = "wasm32"))]
fn look_and_pause(device: &wgpu::Device) -> Result<(), wgpu::PollError> {
    device.poll(wgpu::PollType::Poll)?;
    std::thread::sleep(BETWEEN_LOOKS);
    Ok(())
}

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
            let polled = self.poll(match blocks && !self.inner.outbox.is_paced() {
                true => WAIT_A_WHILE,
                false => wgpu::PollType::Poll,
            });
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
        let paced = self.inner.outbox.is_paced();
        match blocks {
            true => {
                #[cfg(not(target_arch = "wasm32"))]
                if paced {
                    std::thread::sleep(BETWEEN_LOOKS);
                    self.inner.activity.lock().unwrap().waited += BETWEEN_LOOKS;
                }
                waker.wake_by_ref();
            }
            #[cfg(not(target_arch = "wasm32"))]
            false => self.inner.poller.wake_later(self.queue(), || self.looker(), waker),
            // A browser's event loop polls the device by itself.
            #[cfg(target_arch = "wasm32")]
            false => {}
        }
    }

    /// Looks at the device, for a while at most; for another thread.
    #[cfg(not(target_arch = "wasm32"))]
    fn looker(&self) -> impl Fn() -> Result<(), wgpu::PollError> + Send + 'static {
        let (device, polling) = (self.device().clone(), self.inner.polling.clone());
        let paced = self.inner.outbox.is_paced();
        move || {
            if paced {
                return look_and_pause(&device);
            }
            let _alone = polling.lock().unwrap_or_else(PoisonError::into_inner);
            match device.poll(WAIT_A_WHILE) {
                Ok(_) | Err(wgpu::PollError::Timeout) => Ok(()),
                Err(error) => Err(error),
            }
        }
    }

    /// Blocks, for as long as copies within memory take, until the memory of uploads is free again.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn wait_for_uploads(&self) -> Result<()> {
        if !self.inner.outbox.is_paced() {
            return self.poll(wgpu::PollType::wait_indefinitely());
        }
        let started = std::time::Instant::now();
        let waited = self.polled(|| wait_looking(self.queue(), || look_and_pause(self.device())));
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
