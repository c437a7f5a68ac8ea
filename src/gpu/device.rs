//! A GPU's device, with what is kept for it: kernels, choices of variants, counts, faults.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use web_time::Instant;

use super::arithmetic::Arithmetic;
use super::counters::{Activity, Counts};
use super::discovery::GpuSummary;
use super::faults::Faults;
use super::kernels::{Kernel, compile};
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

/// A device with its queue, shaders, and a ledger of what was allocated on it. Cheap to clone.
///
/// A *measuring* `Gpu` (see [`Gpu::measuring`], [`Gpu::without_device`]) has the limits but no device: everything can
/// be allocated and recorded on it, nothing runs, and its ledger tells what the real one would hold.
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

/// Chooses tiles where a recording meets products that have none yet.
pub trait TileChooser: Send + Sync {
    /// The tile for such products on this GPU; `None` leaves it to their shape.
    fn choose(&self, gpu: &Gpu, class: &ProductClass) -> Option<ProductTile>;
}

pub(super) struct Inner {
    pub device: Option<(wgpu::Device, wgpu::Queue)>,
    pub summary: GpuSummary,
    pub limits: Limits,
    /// Invocations of a subgroup, from [`Tier::Subgroups`] on.
    pub subgroup: Option<u32>,
    pub arithmetic: Mutex<Arithmetic>,
    pub checked: bool,
    pub timestamps: bool,
    pub submit_ms: f64,
    pub kernels: Mutex<HashMap<KernelKey, Arc<Kernel>>>,
    /// Of the plans of a measuring `Gpu`, which compiles none.
    pub planned: Mutex<Vec<KernelKey>>,
    pub step_layout: Option<wgpu::BindGroupLayout>,
    pub ledger: Arc<Mutex<Ledger>>,
    pub counts: Mutex<Counts>,
    pub activity: Mutex<Activity>,
    pub pace: Mutex<Pace>,
    pub profile: Option<Mutex<Profile>>,
    pub faults: Faults,
    pub outbox: Outbox,
    /// Buffers whose memory may be given back, and how often that was done.
    pub releasable: Mutex<Vec<Weak<dyn Releasable>>>,
    pub releases: AtomicUsize,
    /// Bytes that were uploaded since the last submit.
    pub staged: AtomicUsize,
    /// Held while a plan's inputs are filled and it is submitted.
    pub turn: Mutex<()>,
    /// What was submitted and not waited for yet, the oldest first.
    pub submitted: Mutex<VecDeque<wgpu::SubmissionIndex>>,
    pub poller: Poller,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gpu").field(&self.inner.summary.name).finish()
    }
}

impl Gpu {
    /// Makes a call, and an [`Error`] of what wgpu has to say against it, whoever handles the device's other errors.
    pub(super) fn guarded<T>(&self, what: &'static str, call: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
        self.inner.faults.guard(self.device(), what, call)
    }

    /// The same, where it does not matter that a loss shows a few milliseconds later.
    pub(super) fn look(&self, what: &str) -> Result<()> {
        self.inner.faults.look(what)
    }

    /// Returns what wgpu reported since the last call, as an error.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        self.inner.faults.check(what)
    }

    /// Gives the device up, also one that is an application's: its memory is freed, and whatever is asked of it afterwards
    /// is [`Error::DeviceLost`].
    pub fn destroy(&self) {
        if let Some((device, _)) = &self.inner.device {
            device.destroy();
            self.inner.faults.lose("it was given up");
        }
    }

    /// Lets wgpu's callbacks run, after waiting for the submitted work or at once.
    pub(super) fn poll(&self, poll: wgpu::PollType) -> Result<()> {
        let waits = !matches!(poll, wgpu::PollType::Poll);
        let started = Instant::now();
        let polled = self.polled(|| self.device().poll(poll).map(drop));
        if waits {
            self.inner.activity.lock().unwrap().waited += started.elapsed();
        }
        polled
    }

    /// What came of polling the device.
    pub(super) fn polled(&self, poll: impl FnOnce() -> Result<(), wgpu::PollError>) -> Result<()> {
        // wgpu panics where the driver loses the device during a poll.
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

    /// Waits until all that waits to be submitted is, so that inputs may be filled, and keeps other threads from filling
    /// theirs. What is submitted before the turn ends comes before what they submit.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(crate) async fn turn(&self) -> Result<MutexGuard<'_, ()>> {
        loop {
            self.drained().await?;
            // A thread that panicked has left nothing behind that the next one would not overwrite.
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

    /// Times of the launches so far, where [`GpuOptions::profile`](super::GpuOptions::profile) asked for them and the GPU can tell.
    pub fn profile(&self) -> Option<Profile> {
        self.inner.profile.as_ref().map(|p| p.lock().unwrap().clone())
    }

    /// What was made so far.
    pub fn counts(&self) -> Counts {
        *self.inner.counts.lock().unwrap()
    }

    /// What was run so far.
    pub fn activity(&self) -> Activity {
        *self.inner.activity.lock().unwrap()
    }

    /// On a measuring `Gpu`: the kernels of the plans made so far, each once.
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

    /// The compiled kernel, from the cache where it is there already. A thread that must not block does not compile it
    /// itself, except in a browser.
    pub(super) async fn kernel(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        if let Some(kernel) = self.inner.kernels.lock().unwrap().get(key) {
            return Ok(kernel.clone());
        }
        match blocking::is_allowed() {
            true => self.compile(key),
            false => self.compile_aside(key).await,
        }
    }

    #[cfg(target_arch = "wasm32")]
    async fn compile_aside(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        self.compile(key)
    }

    #[cfg(not(target_arch = "wasm32"))]
    async fn compile_aside(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
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
            .map_err(|e| Error::SelfCheck(format!("no thread to compile kernels can be started: {e}")))?;
        compiled.arrives().await
    }

    fn compile(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        let kernel = Arc::new(compile(
            self.device(),
            self.step_layout(),
            self.inner.checked,
            &self.inner.faults,
            key,
        )?);
        self.count(|c| c.pipelines += 1);
        self.inner.kernels.lock().unwrap().insert(key.clone(), kernel.clone());
        Ok(kernel)
    }

    /// Of the bindings of `step`, which every kernel has.
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

    /// The tier in force.
    pub fn tier(&self) -> Tier {
        match self.arithmetic() {
            Arithmetic::F32 if self.subgroup().is_some() => Tier::Subgroups,
            Arithmetic::F32 => Tier::Portable,
            Arithmetic::Cooperative { .. } => Tier::Cooperative,
        }
    }

    /// How products with frozen f16 matrices are computed in what is recorded from now on.
    pub fn arithmetic(&self) -> Arithmetic {
        *self.inner.arithmetic.lock().unwrap()
    }

    /// Chooses another, see [`crate::tuning::check_arithmetic`].
    pub fn set_arithmetic(&self, arithmetic: Arithmetic) {
        *self.inner.arithmetic.lock().unwrap() = arithmetic;
    }

    /// Invocations of a subgroup, where the tier uses subgroups.
    pub fn subgroup(&self) -> Option<u32> {
        self.inner.subgroup
    }

    /// The kernels' variants in what is recorded from now on.
    pub fn tuning(&self) -> Tuning {
        self.choices.tuning.lock().unwrap().clone()
    }

    /// Chooses the kernels' variants, see [`crate::tuning::tune`].
    pub fn set_tuning(&self, tuning: Tuning) {
        *self.choices.tuning.lock().unwrap() = tuning;
    }

    /// The same device with other variants of its kernels, whose choices are its own.
    pub fn with_tuning(&self, tuning: Tuning) -> Gpu {
        Gpu { inner: self.inner.clone(), choices: Choices::new(tuning) }
    }

    /// From now on a recording that meets products without a chosen tile asks for one, once for each class of products.
    /// The first that is given stays.
    pub fn choose_tiles_by(&self, chooser: Box<dyn TileChooser>) {
        let _ = self.choices.chooser.set(chooser);
    }

    /// The tile of such products: the chosen one; if nobody chooses, `by_shape`.
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
