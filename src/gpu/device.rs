//! A GPU's device and its state: kernels, chosen variants, counters, faults.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use web_time::Instant;

use super::arithmetic::Arithmetic;
use super::counters::{Activity, Counts};
use super::discovery::GpuSummary;
use super::faults::Faults;
use super::kernels::{Compilation, Kernel, compile};
use super::launch::Work;
use super::ledger::{Ledger, Releasable};
use super::limits::Limits;
use super::options::Tier;
use super::outbox::Outbox;
use super::pace::Pace;
use super::poller::Poller;
use super::profile::Profile;
use super::shader::KernelKey;
use super::tiles::{ProductClass, ProductTile};
use super::variants::{Products, Tuning};
use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::signal::Signal;
use crate::task::blocking;

/// A device with its queue, shaders, and a ledger of the memory allocated on it. Cheap to clone.
///
/// A *measuring* `Gpu` (see [`Gpu::measuring`], [`Gpu::without_device`]) has the limits but no device: everything can
/// be allocated and recorded on it, nothing runs, and its ledger shows what a real one would hold.
#[derive(Clone)]
pub struct Gpu {
    pub(super) inner: Arc<Inner>,
    pub(super) choices: Arc<Choices>,
}

/// Which variants of the kernels run, see [`Gpu::with_tuning`].
pub(super) struct Choices {
    tuning: Mutex<Tuning>,
    chooser: OnceLock<Box<dyn TileChooser>>,
}

impl Choices {
    pub fn new(tuning: Tuning) -> Arc<Choices> {
        Arc::new(Choices { tuning: Mutex::new(tuning), chooser: OnceLock::new() })
    }
}

/// Chooses tiles for products that have none when they are recorded.
pub trait TileChooser: Send + Sync {
    /// Returns the tile for these products on this GPU; `None` for the default for their shape.
    fn choose(&self, gpu: &Gpu, class: &ProductClass) -> Option<ProductTile>;
}

pub(super) struct Inner {
    pub device: Option<(wgpu::Device, wgpu::Queue)>,
    pub summary: GpuSummary,
    pub limits: Limits,
    /// Lanes of a subgroup, from [`Tier::Subgroups`] on.
    pub subgroup: Option<u32>,
    pub arithmetic: Mutex<Arithmetic>,
    pub compilation: Compilation,
    pub timestamps: bool,
    pub submit_ms: f64,
    pub kernels: Mutex<HashMap<KernelKey, Arc<Kernel>>>,
    /// The kernels of the plans made on a measuring `Gpu`, which compiles none.
    pub planned: Mutex<Vec<KernelKey>>,
    pub step_layout: Option<wgpu::BindGroupLayout>,
    pub ledger: Arc<Mutex<Ledger>>,
    pub counts: Mutex<Counts>,
    pub activity: Mutex<Activity>,
    pub pace: Mutex<Pace>,
    pub profile: Option<Mutex<Profile>>,
    pub faults: Faults,
    pub outbox: Outbox,
    /// Buffers whose memory may be released, and how often that was done.
    pub releasable: Mutex<Vec<Weak<dyn Releasable>>>,
    pub releases: AtomicUsize,
    /// Bytes uploaded since the last submit.
    pub staged: AtomicUsize,
    /// Held while a plan's inputs are filled and it is submitted.
    pub turn: Mutex<()>,
    /// Submits that were not waited for yet, the oldest first.
    pub submitted: Mutex<VecDeque<wgpu::SubmissionIndex>>,
    pub poller: Poller,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gpu").field(&self.inner.summary.name).finish()
    }
}

impl Gpu {
    /// Makes a call and returns the error that wgpu reports for it, independent of the device's error handlers.
    pub(super) fn guarded<T>(&self, what: &'static str, call: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
        self.inner.faults.guard(self.device(), what, call)
    }

    /// Like [`Gpu::check`], but may notice the loss of the device a few milliseconds later.
    pub(super) fn look(&self, what: &str) -> Result<()> {
        self.inner.faults.look(what)
    }

    /// Returns the error that wgpu reported since the last call, if any.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        self.inner.faults.check(what)
    }

    /// Destroys the device, even if it belongs to an application: its memory is freed, and every later call returns
    /// [`Error::DeviceLost`].
    pub fn destroy(&self) {
        if let Some((device, _)) = &self.inner.device {
            device.destroy();
            self.inner.faults.lose("it was destroyed");
        }
    }

    /// Polls the device: runs wgpu's callbacks, at once or after waiting for the submitted work.
    pub(super) fn poll(&self, poll: wgpu::PollType) -> Result<()> {
        let waits = !matches!(poll, wgpu::PollType::Poll);
        let started = Instant::now();
        let polled = self.polled(|| self.device().poll(poll).map(drop));
        if waits {
            self.inner.activity.lock().unwrap().waited += started.elapsed();
        }
        polled
    }

    /// Polls the device and returns the result as this crate's error.
    pub(super) fn polled(&self, poll: impl FnOnce() -> Result<(), wgpu::PollError>) -> Result<()> {
        // wgpu panics if the driver loses the device during a poll.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)) {
            Ok(Ok(()) | Err(wgpu::PollError::Timeout)) => Ok(()),
            Ok(Err(e)) => Err(Error::DeviceLost(e.to_string())),
            Err(_) => self.check("a poll").and(Err(Error::DeviceLost("during a poll".into()))),
        }
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.inner.device.as_ref().expect("a measuring Gpu runs nothing").0
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.inner.device.as_ref().expect("a measuring Gpu runs nothing").1
    }

    /// Waits until everything in the queue is submitted, so that inputs may be filled, and blocks other threads from
    /// filling theirs. What is submitted before the guard is dropped comes before what they submit.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(crate) async fn turn(&self) -> Result<MutexGuard<'_, ()>> {
        loop {
            self.drained().await?;
            // The next thread overwrites everything that a thread that panicked may have left behind.
            let turn = self.inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
            if self.inner.outbox.jobs().is_empty() {
                return Ok(turn);
            }
        }
    }

    /// Whether this is the same device.
    pub(crate) fn is(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether nothing can run here (see [`Gpu::measuring`]).
    pub fn is_measuring(&self) -> bool {
        self.inner.device.is_none()
    }

    /// Its name, kind and driver.
    pub fn summary(&self) -> &GpuSummary {
        &self.inner.summary
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Returns the times of the launches so far, if [`GpuOptions::profile`](super::GpuOptions::profile) is set and the
    /// GPU has timestamps.
    pub fn profile(&self) -> Option<Profile> {
        self.inner.profile.as_ref().map(|p| p.lock().unwrap().clone())
    }

    /// Returns the numbers of objects created so far.
    pub fn counts(&self) -> Counts {
        *self.inner.counts.lock().unwrap()
    }

    /// Returns the work that was run so far.
    pub fn activity(&self) -> Activity {
        *self.inner.activity.lock().unwrap()
    }

    /// On a measuring `Gpu`: returns the kernels of the plans made so far, each once.
    pub fn planned_kernels(&self) -> Vec<KernelKey> {
        self.inner.planned.lock().unwrap().clone()
    }

    pub(super) fn note_planned<'k>(&self, kernels: impl Iterator<Item = &'k KernelKey>) {
        let mut planned = self.inner.planned.lock().unwrap();
        for key in kernels {
            if !planned.contains(key) {
                planned.push(key.clone());
            }
        }
    }

    /// Returns the compiled kernel, from the cache if it is there. If the thread must not block, another thread
    /// compiles it, except in a browser.
    pub(super) async fn kernel(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        if let Some(kernel) = self.inner.kernels.lock().unwrap().get(key) {
            return Ok(kernel.clone());
        }
        match blocking::is_allowed() {
            true => self.compile(key),
            false => self.compile_on_thread(key).await,
        }
    }

    #[cfg(target_arch = "wasm32")]
    async fn compile_on_thread(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        self.compile(key)
    }

    #[cfg(not(target_arch = "wasm32"))]
    async fn compile_on_thread(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        let (compiled, set) = Signal::new();
        let (gpu, key) = (self.clone(), key.clone());
        let compile = move || {
            let kernel = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gpu.compile(&key)));
            let panicked = |_| Err(Error::SelfCheck(format!("compiling the kernel {} panicked", key.name)));
            set(kernel.unwrap_or_else(panicked));
        };
        std::thread::Builder::new()
            .name("oaif-compile".into())
            .spawn(compile)
            .map_err(|e| Error::SelfCheck(format!("cannot start a thread to compile kernels: {e}")))?;
        compiled.arrives().await
    }

    fn compile(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        let kernel = Arc::new(compile(
            self.device(),
            self.step_layout(),
            self.inner.compilation,
            &self.inner.faults,
            key,
        )?);
        self.count(|c| c.pipelines += 1);
        self.inner.kernels.lock().unwrap().insert(key.clone(), kernel.clone());
        Ok(kernel)
    }

    /// The layout of the bind group of `step`, which every kernel has.
    pub(super) fn step_layout(&self) -> &wgpu::BindGroupLayout {
        self.inner.step_layout.as_ref().expect("a measuring Gpu runs nothing")
    }

    pub(super) fn count(&self, note: impl FnOnce(&mut Counts)) {
        note(&mut self.inner.counts.lock().unwrap());
    }

    pub(super) fn note_launches(&self, launches: u64, work: Work) {
        let mut activity = self.inner.activity.lock().unwrap();
        activity.launches += launches;
        activity.work.flops += work.flops;
        activity.work.bytes += work.bytes;
    }

    /// Returns the tier in use.
    pub fn tier(&self) -> Tier {
        match self.arithmetic() {
            Arithmetic::F32 if self.subgroup().is_some() => Tier::Subgroups,
            Arithmetic::F32 => Tier::Portable,
            Arithmetic::Cooperative { .. } => Tier::Cooperative,
        }
    }

    /// Returns how products with frozen f16 matrices are computed in new recordings.
    pub fn arithmetic(&self) -> Arithmetic {
        *self.inner.arithmetic.lock().unwrap()
    }

    /// Sets how they are computed, see [`crate::tuning::check_arithmetic`].
    pub fn set_arithmetic(&self, arithmetic: Arithmetic) {
        *self.inner.arithmetic.lock().unwrap() = arithmetic;
    }

    /// Returns the lanes of a subgroup, if the tier uses subgroups.
    pub fn subgroup(&self) -> Option<u32> {
        self.inner.subgroup
    }

    /// Returns the kernel variants for new recordings.
    pub fn tuning(&self) -> Tuning {
        self.choices.tuning.lock().unwrap().clone()
    }

    /// Sets the kernel variants, see [`crate::tuning::tune`].
    pub fn set_tuning(&self, tuning: Tuning) {
        *self.choices.tuning.lock().unwrap() = tuning;
    }

    /// Returns the same device with other kernel variants, chosen independently.
    pub fn with_tuning(&self, tuning: Tuning) -> Gpu {
        Gpu { inner: self.inner.clone(), choices: Choices::new(tuning) }
    }

    /// Sets the chooser of tiles: new recordings call it once for each class of products without a chosen tile. Only
    /// the first call has an effect.
    pub fn choose_tiles_by(&self, chooser: Box<dyn TileChooser>) {
        let _ = self.choices.chooser.set(chooser);
    }

    /// Returns the tile for these products: the chosen one, or `by_shape` if there is no chooser.
    pub(super) fn tile(&self, class: ProductClass, by_shape: ProductTile) -> ProductTile {
        let Products::Staged(products) = self.tuning().products else { return by_shape };
        if let Some(tile) = products.tile(&class) {
            return tile;
        }
        let Some(chooser) = self.choices.chooser.get() else { return by_shape };
        let tile = chooser.choose(self, &class).unwrap_or(by_shape);
        if let Products::Staged(products) = &mut self.choices.tuning.lock().unwrap().products {
            products.choose(class, tile);
        }
        tile
    }
}
