//! Waiting for a device's work.
//!
//! wgpu's callbacks wake whoever waits. They run while the device is polled: by the waiting thread where it may block (see
//! [`crate::task`]), else by the [`Poller`](super::poller::Poller).

use std::task::Poll;
use std::time::Duration;

use super::device::Gpu;
use super::signal::Signal;
use crate::error::Result;
use crate::task::blocking;

/// How long a thread that may block does so before it looks at what else its future waits for. wgpu lets no frame be presented
/// meanwhile.
const A_WHILE: Duration = Duration::from_millis(4);

impl Gpu {
    /// Waits until everything submitted has run.
    pub async fn idle(&self) -> Result<()> {
        if !self.is_measuring() {
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
        std::future::poll_fn(|cx| {
            if let Some(value) = signal.take(cx.waker()) {
                return Poll::Ready(Ok(value));
            }
            let blocks = blocking::is_allowed();
            let polled = self.poll(match blocks {
                true => wgpu::PollType::Wait { submission_index: None, timeout: Some(A_WHILE) },
                false => wgpu::PollType::Poll,
            });
            match (signal.take(cx.waker()), polled) {
                (Some(value), _) => Poll::Ready(Ok(value)),
                (None, Err(error)) => Poll::Ready(Err(error)),
                (None, Ok(())) => {
                    match blocks {
                        true => cx.waker().wake_by_ref(),
                        false => self.inner.poller.wake_later(self.device(), cx.waker()),
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Waits until wgpu has told what it has against the calls so far: a browser tells it later.
    ///
    /// # Errors
    /// The first of it.
    pub(super) async fn settle(&self) -> Result<()> {
        self.inner.faults.settle().await
    }
}
