//! Errors that wgpu reports outside the call that caused them, and whether the device is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use web_time::Instant;

use crate::error::{Error, Result};
use crate::task::{Task, poll_once};

/// Errors of a device.
#[derive(Default)]
pub(super) struct Faults {
    reported: Arc<Mutex<Reported>>,
    /// The device, if it belongs to an application, which handles its errors itself.
    foreign: Option<Foreign>,
    /// Error scopes whose result is not known yet.
    pending: Mutex<Vec<Task<'static, Option<Error>>>>,
    /// Held while waiting for `pending`.
    settling: async_lock::Mutex<()>,
}

#[derive(Default)]
struct Reported {
    uncaptured: Option<String>,
    lost: Option<String>,
}

/// An application's device.
struct Foreign {
    device: wgpu::Device,
    /// When it was last known not to be lost.
    alive: Mutex<Instant>,
}

/// How long an application's device counts as not lost after the last check. If it was lost meanwhile, calls on it do
/// nothing, and every read-back checks again.
const ALIVE: Duration = Duration::from_millis(10);

impl Foreign {
    fn is_lost(&self) -> bool {
        let lost = is_device_lost(&self.device);
        if !lost {
            *self.alive.lock().unwrap() = Instant::now();
        }
        lost
    }

    fn was_recently_alive(&self) -> bool {
        self.alive.lock().unwrap().elapsed() < ALIVE
    }
}

impl Faults {
    /// Takes over the error reports of the crate's own device, which would otherwise panic.
    pub fn of_own(device: &wgpu::Device) -> Faults {
        let faults = Faults::default();
        let reported = faults.reported.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            reported.lock().unwrap().uncaptured.get_or_insert(e.to_string());
        }));
        let reported = faults.reported.clone();
        device.set_device_lost_callback(move |reason, message| {
            reported.lock().unwrap().lost.get_or_insert(format!("{reason:?} {message}"));
        });
        faults
    }

    /// Watches an application's device, which handles its own errors.
    pub fn of_foreign(device: &wgpu::Device) -> Faults {
        let foreign = Foreign { device: device.clone(), alive: Mutex::new(Instant::now()) };
        Faults { foreign: Some(foreign), ..Faults::default() }
    }

    /// Makes a call and returns the error that wgpu reports for it, independent of the device's error handlers.
    pub fn guard<T>(
        &self,
        device: &wgpu::Device,
        what: &'static str,
        call: impl FnOnce(&wgpu::Device) -> T,
    ) -> Result<T> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        // On a lost device, calls do nothing and report nothing.
        self.look(what)?;
        // Dropped in reverse order of creation if `call` panics.
        let internal = device.push_error_scope(Internal);
        let memory = device.push_error_scope(OutOfMemory);
        let validation = device.push_error_scope(Validation);
        let result = call(device);
        let error = move |e: wgpu::Error| Error::Gpu { what: what.into(), why: e.to_string() };
        let found = [validation, memory, internal].map(|scope| self.caught(scope, error));
        let found = found.into_iter().flatten().next();
        // The error may be a consequence of a lost device.
        let reported = if found.is_some() { self.check(what) } else { self.look(what) };
        match (reported, found) {
            // On a lost device, wgpu's error for the call does not matter.
            (Err(lost @ Error::DeviceLost(_)), _) => Err(lost),
            (_, Some(error)) => Err(error),
            (reported, None) => reported.map(|()| result),
        }
    }

    /// Returns the error that a scope has caught. A browser reports it later: then [`Faults::settle`] returns it.
    pub fn caught(
        &self,
        scope: wgpu::ErrorScopeGuard,
        error: impl FnOnce(wgpu::Error) -> Error + Send + 'static,
    ) -> Option<Error> {
        let popped = scope.pop();
        let mut result: Task<'static, Option<Error>> = Box::pin(async move { popped.await.map(error) });
        let at_once = poll_once(result.as_mut());
        if at_once.is_none() {
            self.pending.lock().unwrap().push(result);
        }
        at_once.flatten()
    }

    /// Waits for the results of pending error scopes.
    ///
    /// # Errors
    /// The first error among them.
    pub async fn settle(&self) -> Result<()> {
        // A future wakes only the last task that polled it.
        let _waiting = self.settling.lock().await;
        // Polled in place: a result that arrives while no task waits is kept for the next one.
        std::future::poll_fn(|cx| {
            let mut pending = self.pending.lock().unwrap();
            let mut first = None;
            pending.retain_mut(|result| match result.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(error) => {
                    first = first.take().or(error);
                    false
                }
            });
            match (first, pending.is_empty()) {
                (Some(error), _) => Poll::Ready(Err(error)),
                (None, true) => Poll::Ready(Ok(())),
                (None, false) => Poll::Pending,
            }
        })
        .await
    }

    /// Records that the device is lost, unless that is recorded already.
    pub fn lose(&self, why: &str) {
        self.reported.lock().unwrap().lost.get_or_insert(why.into());
    }

    /// Returns the error that was reported since the last call, if any.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::Gpu`].
    pub fn check(&self, what: &str) -> Result<()> {
        if self.foreign.as_ref().is_some_and(Foreign::is_lost) {
            self.lose("the application's device was lost or destroyed");
        }
        self.reported(what)
    }

    /// Like [`Faults::check`], but skips the check of an application's device that was checked a moment ago.
    pub fn look(&self, what: &str) -> Result<()> {
        match self.foreign.as_ref().is_none_or(Foreign::was_recently_alive) {
            true => self.reported(what),
            false => self.check(what),
        }
    }

    fn reported(&self, what: &str) -> Result<()> {
        let mut reported = self.reported.lock().unwrap();
        if let Some(lost) = &reported.lost {
            return Err(Error::DeviceLost(lost.clone()));
        }
        match reported.uncaptured.take() {
            Some(why) => Err(Error::Gpu { what: what.into(), why }),
            None => Ok(()),
        }
    }
}

/// Whether an application's device is lost, which wgpu reports only to the application. Calls on it do nothing and
/// report nothing; only a mapping fails immediately.
fn is_device_lost(device: &wgpu::Device) -> bool {
    let failed = Arc::new(AtomicBool::new(false));
    let flag = failed.clone();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let probe = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("probe"),
        size: 4,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    // Not unmapped: another thread may be polling the device. If it succeeds, its result is not used.
    probe.map_async(wgpu::MapMode::Read, .., move |mapped| flag.store(mapped.is_err(), Ordering::Relaxed));
    drop(scope.pop());
    failed.load(Ordering::Relaxed)
}
