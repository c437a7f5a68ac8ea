//! Helpers for futures. This crate has no executor: any executor can poll its futures, such as the event loop of a window
//! or of a browser.
//!
//! On native targets, [`block_on`] and [`Wait`] run a future on the calling thread.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use web_time::Instant;

/// A boxed future that can be sent to another thread.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs a future to completion on this thread, which also polls the GPU.
#[cfg(not(target_arch = "wasm32"))]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let _blocking = blocking::Blocking::begin();
    pollster::block_on(future)
}

/// [`block_on`] as a method: `plan.run(&live).wait()?`.
#[cfg(not(target_arch = "wasm32"))]
pub trait Wait: Future + Sized {
    /// Runs the future to completion on this thread.
    fn wait(self) -> Self::Output {
        block_on(self)
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<F: Future> Wait for F {}

/// Whether this thread is inside [`block_on`] and may therefore block.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod blocking {
    use std::cell::Cell;

    thread_local! {
        static DEPTH: Cell<usize> = const { Cell::new(0) };
    }

    pub struct Blocking;

    impl Blocking {
        pub fn begin() -> Blocking {
            DEPTH.set(DEPTH.get() + 1);
            Blocking
        }
    }

    impl Drop for Blocking {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }

    pub fn is_allowed() -> bool {
        DEPTH.get() > 0
    }
}

/// Blocking is never allowed in a browser, since its only thread also runs the page.
#[cfg(target_arch = "wasm32")]
pub(crate) mod blocking {
    pub fn is_allowed() -> bool {
        false
    }
}

/// The longest time that a future may occupy a thread that must not block: half a frame.
const SLICE: Duration = Duration::from_millis(8);

/// Measures how long a future has occupied its thread.
pub(crate) struct Slice {
    since: Instant,
}

impl Slice {
    pub fn begin() -> Slice {
        Slice { since: Instant::now() }
    }

    /// Yields to other work on the thread if the time slice is over.
    pub async fn yield_now(&mut self) {
        if !blocking::is_allowed() && self.since.elapsed() > SLICE {
            // In a browser, a future that is woken immediately runs again before the page is drawn.
            futures_timer::Delay::new(Duration::ZERO).await;
            self.since = Instant::now();
        }
    }
}

/// Yields once, so that other futures that are polled together with this one make progress; see [`unless`].
pub(crate) async fn yield_now() {
    let mut given = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Returns the result of `future`, unless `end` completes first.
pub(crate) async fn unless<T>(end: impl Future<Output = ()>, future: impl Future<Output = T>) -> Option<T> {
    let (mut end, mut future) = (std::pin::pin!(end), std::pin::pin!(future));
    std::future::poll_fn(|cx| match end.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Polls two futures together, and returns the results of both.
pub(crate) async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(move |cx| {
        if first.is_none()
            && let Poll::Ready(value) = one.as_mut().poll(cx)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = other.as_mut().poll(cx)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

/// Polls a future once, and returns its result if it is ready.
pub(crate) fn poll_once<T>(future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Option<T> {
    match future.poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
