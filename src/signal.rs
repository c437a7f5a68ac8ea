//! What a callback, of wgpu or of a thread of ours, brings to a future.

use std::sync::{Arc, Mutex};
#[cfg(not(target_arch = "wasm32"))]
use std::task::Poll;
use std::task::Waker;

/// Something that a callback will bring.
pub(crate) struct Signal<T> {
    state: Arc<Mutex<(Option<T>, Option<Waker>)>>,
}

impl<T: Send + 'static> Signal<T> {
    /// The signal, and what the callback calls.
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

    /// Waits for what does not come from the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn arrives(&self) -> T {
        std::future::poll_fn(|cx| self.take(cx.waker()).map_or(Poll::Pending, Poll::Ready)).await
    }

    /// What it brought, or else a note of whom to wake.
    pub fn take(&self, waker: &Waker) -> Option<T> {
        let mut state = self.state.lock().unwrap();
        let value = state.0.take();
        if value.is_none() {
            state.1 = Some(waker.clone());
        }
        value
    }
}
