//! Runs wgpu's callbacks for futures whose thread must not block.
//!
//! A browser's event loop polls the device. Natively, a thread per device does; it starts with the first such wait.

#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::{POLL_INTERVAL, Poller, wait_polling};

/// A browser needs no poller.
#[cfg(target_arch = "wasm32")]
#[derive(Default)]
pub(super) struct Poller;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, OnceLock};
    use std::task::Waker;
    use std::time::{Duration, Instant};

    use wgpu::PollError;

    /// Time between two polls of an application's device: shorter than a submit, much longer than a poll.
    pub const POLL_INTERVAL: Duration = Duration::from_micros(300);

    /// The longest time to poll a device, which may be lost: its callbacks may never run.
    const MAX_POLLING: Duration = Duration::from_millis(500);

    /// Owns the polling thread, which ends when this is dropped.
    #[derive(Default)]
    pub struct Poller {
        wakers: OnceLock<Sender<Waker>>,
    }

    impl Poller {
        /// Wakes `waker` when the work submitted so far is done. `waiter` creates the function that waits for it.
        pub fn wake_later<W: Fn() -> Result<(), PollError> + Send + 'static>(
            &self,
            waiter: impl FnOnce() -> W,
            waker: &Waker,
        ) {
            let start = || {
                let (send, wakers) = channel();
                let wait = waiter();
                std::thread::Builder::new()
                    .name("oaif-poll".into())
                    .spawn(move || serve(wait, &wakers))
                    .expect("a thread to poll the GPU");
                send
            };
            // The thread serves as long as the sender exists.
            let _ = self.wakers.get_or_init(start).send(waker.clone());
        }
    }

    fn serve(wait: impl Fn() -> Result<(), PollError>, wakers: &Receiver<Waker>) {
        while let Ok(waker) = wakers.recv() {
            let waiting: Vec<Waker> = std::iter::once(waker).chain(wakers.try_iter()).collect();
            // Errors and panics are ignored here: the woken tasks find them when they poll the device.
            let _ = catch_unwind(AssertUnwindSafe(&wait));
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until the work submitted so far is done, by polling the device repeatedly.
    pub fn wait_polling(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<(), PollError> {
        let (done, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let set = done.clone();
        queue.on_submitted_work_done(move || set.store(true, Relaxed));
        loop {
            device.poll(wgpu::PollType::Poll)?;
            if done.load(Relaxed) || started.elapsed() > MAX_POLLING {
                return Ok(());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}
