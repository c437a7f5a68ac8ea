//! Has wgpu's callbacks run for futures whose thread must not block.
//!
//! A browser's event loop polls the device by itself. Natively somebody has to: a thread of the device's own, from the first
//! such wait on.

#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::Poller;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::sync::OnceLock;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::task::Waker;

    /// Its thread ends with it.
    #[derive(Default)]
    pub struct Poller {
        wakers: OnceLock<Sender<Waker>>,
    }

    impl Poller {
        /// Wakes when the work that is submitted by now is done.
        pub fn wake_later(&self, device: &wgpu::Device, waker: &Waker) {
            let start = || {
                let (send, wakers) = channel();
                let device = device.clone();
                std::thread::Builder::new()
                    .name("oaif-poll".into())
                    .spawn(move || serve(&device, &wakers))
                    .expect("a thread to poll the GPU");
                send
            };
            // It serves as long as this is there.
            let _ = self.wakers.get_or_init(start).send(waker.clone());
        }
    }

    fn serve(device: &wgpu::Device, wakers: &Receiver<Waker>) {
        while let Ok(waker) = wakers.recv() {
            let waiting: Vec<Waker> = std::iter::once(waker).chain(wakers.try_iter()).collect();
            // What goes wrong shows when those that wait look for themselves.
            let poll = || device.poll(wgpu::PollType::wait_indefinitely());
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll));
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

/// In a browser there is nothing to do.
#[cfg(target_arch = "wasm32")]
#[derive(Default)]
pub(super) struct Poller;

#[cfg(target_arch = "wasm32")]
impl Poller {
    pub fn wake_later(&self, _: &wgpu::Device, _: &std::task::Waker) {}
}
