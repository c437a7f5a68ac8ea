//! Has wgpu's callbacks run for futures whose thread must not block.
//!
//! A browser's event loop polls the device by itself. Natively somebody has to: a thread of the device's own, from the first
//! such wait on.

#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::Poller;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::OnceLock;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::task::Waker;

    use super::super::waiting::wait_without_lock;

    /// Its thread ends with it.
    #[derive(Default)]
    pub struct Poller {
        wakers: OnceLock<Sender<Waker>>,
    }

    impl Poller {
        /// Wakes when the work that is submitted by now is done. Frames can be presented meanwhile where the device is
        /// `shared` with them.
        pub fn wake_later(&self, device: &wgpu::Device, queue: &wgpu::Queue, shared: bool, waker: &Waker) {
            let start = || {
                let (send, wakers) = channel();
                let (device, queue) = (device.clone(), queue.clone());
                let wait = move || match shared {
                    true => wait_without_lock(&device, &queue),
                    false => device.poll(wgpu::PollType::wait_indefinitely()).map(drop),
                };
                std::thread::Builder::new()
                    .name("oaif-poll".into())
                    .spawn(move || serve(wait, &wakers))
                    .expect("a thread to poll the GPU");
                send
            };
            // It serves as long as this is there.
            let _ = self.wakers.get_or_init(start).send(waker.clone());
        }
    }

    fn serve(wait: impl Fn() -> Result<(), wgpu::PollError>, wakers: &Receiver<Waker>) {
        while let Ok(waker) = wakers.recv() {
            let waiting: Vec<Waker> = std::iter::once(waker).chain(wakers.try_iter()).collect();
            // What goes wrong shows when those that wait look for themselves.
            let _ = catch_unwind(AssertUnwindSafe(&wait));
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
    pub fn wake_later(&self, _: &wgpu::Device, _: &wgpu::Queue, _: bool, _: &std::task::Waker) {}
}
