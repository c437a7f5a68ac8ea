//! A one-shot channel from a callback, of wgpu or of one of our threads, to a future.

use std::sync::{Arc, Mutex};
#[cfg(not(target_arch = "wasm32"))]
use std::task::Poll;
use std::task::Waker;

/// The receiving end.
pub(crate) struct Signal<T> {
    state: Arc<Mutex<(Option<T>, Option<Waker>)>>,
}

impl<T: Send + 'static> Signal<T> {
    /// Creates a signal and the function that sends its value.
    pub fn new() -> (Signal<T>, impl FnOnce(T) + Send + 'static) {
        let state = Arc::new(Mutex::new((None, None::<Waker>)));
        let signal = Signal { state: state.clone() };
        let set = move |value| {
            let mut state = state.lock().unwrap();
            state.0 = Some(value);
            if let Some(waker) = state.1.take() {
                waker.wake();
            }
        };
        (signal, set)
    }

    /// Waits for a value that does not come from the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn arrives(&self) -> T {
        std::future::poll_fn(|cx| self.take(cx.waker()).map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Returns the value if it has arrived; otherwise registers the waker.
    pub fn take(&self, waker: &Waker) -> Option<T> {
        let mut state = self.state.lock().unwrap();
        let value = state.0.take();
        if value.is_none() {
            state.1 = Some(waker.clone());
        }
        value
    }
}
