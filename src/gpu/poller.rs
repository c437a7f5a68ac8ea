//! Has wgpu's callbacks run for futures whose thread must not block.
//!
//! A browser's event loop polls the device by itself. Natively somebody has to: a thread of the device's own, from the first
//! such wait on.

#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::{BETWEEN_LOOKS, Poller, wait_looking};

/// In a browser there is nothing to do.
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

    /// Time between two looks at an application's device: a part of what a submit takes, much more than a look takes.
    pub const BETWEEN_LOOKS: Duration = Duration::from_micros(300);

    /// How long a lost device may leave a thread waiting that looks at it: its callbacks may never come.
    const LONGEST_LOOKING: Duration = Duration::from_millis(500);

    /// Its thread ends with it.
    #[derive(Default)]
    pub struct Poller {
        wakers: OnceLock<Sender<Waker>>,
    }

    impl Poller {
        /// Wakes when the work that is submitted by now is done. `waiter` makes what waits for it.
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
            // It serves as long as this is there.
            let _ = self.wakers.get_or_init(start).send(waker.clone());
        }
    }

    fn serve(wait: impl Fn() -> Result<(), PollError>, wakers: &Receiver<Waker>) {
        while let Ok(waker) = wakers.recv() {
            let waiting: Vec<Waker> = std::iter::once(waker).chain(wakers.try_iter()).collect();
            // What goes wrong shows when those that wait look for themselves.
            let _ = catch_unwind(AssertUnwindSafe(&wait));
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until the work that is submitted by now is done, by looking at the device again and again.
    pub fn wait_looking(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<(), PollError> {
        let (done, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let set = done.clone();
        queue.on_submitted_work_done(move || set.store(true, Relaxed));
        loop {
            device.poll(wgpu::PollType::Poll)?;
            if done.load(Relaxed) || started.elapsed() > LONGEST_LOOKING {
                return Ok(());
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }
}
