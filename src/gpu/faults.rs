//! What wgpu reports outside the call that is to blame, and whether the device is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use web_time::Instant;

use crate::error::{Error, Result};
use crate::task::{Task, poll_once};

/// What went wrong on a device.
#[derive(Default)]
pub(super) struct Faults {
    reported: Arc<Mutex<Reported>>,
    /// The device, where it is an application's, which handles its errors itself.
    foreign: Option<Foreign>,
    /// What scopes have caught, where wgpu has yet to tell.
    untold: Mutex<Vec<Task<'static, Option<Error>>>>,
    /// Held by who waits for that.
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
    /// When it was last seen alive.
    alive: Mutex<Instant>,
}

/// How long an application's device is taken for alive after it was seen so. What is done meanwhile on a lost one comes to
/// nothing, and every read-back looks again.
const ALIVE: Duration = Duration::from_millis(10);

impl Foreign {
    fn is_lost(&self) -> bool {
        let lost = is_dead(&self.device);
        if !lost {
            *self.alive.lock().unwrap() = Instant::now();
        }
        lost
    }

    fn was_just_alive(&self) -> bool {
        self.alive.lock().unwrap().elapsed() < ALIVE
    }
}

impl Faults {
    /// Of a device whose error reports, which would otherwise panic, are taken over.
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

    /// Of an application's device.
    pub fn of_foreign(device: &wgpu::Device) -> Faults {
        let foreign = Foreign { device: device.clone(), alive: Mutex::new(Instant::now()) };
        Faults { foreign: Some(foreign), ..Faults::default() }
    }

    /// Makes a call, and an [`Error`] of what wgpu has to say against it, whoever handles the device's other errors.
    pub fn guard<T>(
        &self,
        device: &wgpu::Device,
        what: &'static str,
        call: impl FnOnce(&wgpu::Device) -> T,
    ) -> Result<T> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        // On a lost device calls do nothing, without a word.
        self.look(what)?;
        // Dropped on the way out of a panic, in the reverse order of their making.
        let internal = device.push_error_scope(Internal);
        let memory = device.push_error_scope(OutOfMemory);
        let validation = device.push_error_scope(Validation);
        let result = call(device);
        let error = move |e: wgpu::Error| Error::Gpu { what: what.into(), why: e.to_string() };
        let found = [validation, memory, internal].map(|scope| self.caught(scope, error));
        let found = found.into_iter().flatten().next();
        // An error may be that of a lost device.
        let reported = if found.is_some() { self.check(what) } else { self.look(what) };
        match (reported, found) {
            // What wgpu says of a lost device's remains is beside the point.
            (Err(lost @ Error::DeviceLost(_)), _) => Err(lost),
            (_, Some(error)) => Err(error),
            (reported, None) => reported.map(|()| result),
        }
    }

    /// What a scope has caught. A browser tells it later: then it is an error of [`Faults::settle`].
    pub fn caught(
        &self,
        scope: wgpu::ErrorScopeGuard,
        error: impl FnOnce(wgpu::Error) -> Error + Send + 'static,
    ) -> Option<Error> {
        let popped = scope.pop();
        let mut told: Task<'static, Option<Error>> = Box::pin(async move { popped.await.map(error) });
        let at_once = poll_once(told.as_mut());
        if at_once.is_none() {
            self.untold.lock().unwrap().push(told);
        }
        at_once.flatten()
    }

    /// Waits for what wgpu has yet to tell.
    ///
    /// # Errors
    /// The first of it.
    pub async fn settle(&self) -> Result<()> {
        // Each wakes the last who looked at it.
        let _waiting = self.settling.lock().await;
        // In place: what is told while nobody waits is there for the next who does.
        std::future::poll_fn(|cx| {
            let mut untold = self.untold.lock().unwrap();
            let mut first = None;
            untold.retain_mut(|told| match told.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(error) => {
                    first = first.take().or(error);
                    false
                }
            });
            match (first, untold.is_empty()) {
                (Some(error), _) => Poll::Ready(Err(error)),
                (None, true) => Poll::Ready(Ok(())),
                (None, false) => Poll::Pending,
            }
        })
        .await
    }

    /// Notes that the device is lost, unless it was before.
    pub fn lose(&self, why: &str) {
        self.reported.lock().unwrap().lost.get_or_insert(why.into());
    }

    /// What was reported since the last call, as an error.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::Gpu`].
    pub fn check(&self, what: &str) -> Result<()> {
        if self.foreign.as_ref().is_some_and(Foreign::is_lost) {
            self.lose("the application's device is gone");
        }
        self.reported(what)
    }

    /// The same, but an application's device that was alive a moment ago is taken for alive.
    pub fn look(&self, what: &str) -> Result<()> {
        match self.foreign.as_ref().is_none_or(Foreign::was_just_alive) {
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

/// Whether an application's device is lost, which wgpu tells the application alone. Calls on it do nothing, without a word;
/// only a mapping fails at once.
fn is_dead(device: &wgpu::Device) -> bool {
    let failed = Arc::new(AtomicBool::new(false));
    let flag = failed.clone();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let probe = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("probe"),
        size: 4,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    // Not unmapped: a thread that polls the device may be at it. Where it goes well, nobody waits for it.
    probe.map_async(wgpu::MapMode::Read, .., move |mapped| flag.store(mapped.is_err(), Ordering::Relaxed));
    drop(scope.pop());
    failed.load(Ordering::Relaxed)
}
